from __future__ import annotations

from pathlib import Path

import pytest

from scheduler import config
from scheduler.domain.blockers import LEADER_SILENT_AFTER


def load(env: dict[str, str] | None = None, **flags: object) -> config.Config:
    given = {name.replace("__", "."): value for name, value in flags.items()}
    return config.load(given, environ=env or {}).config


def errors(env: dict[str, str], file: Path | None = None) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        config.load({}, environ=env, file=file)
    return caught.value.errors


def test_defaults_need_no_source() -> None:
    loaded = config.load({}, environ={})
    assert loaded.config == config.Config()
    assert loaded.sources == {}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "dts.toml"
    file.write_text('[api]\nport = 1\nmax_body = 2048\n[log]\nlevel = "debug"\n')
    env = {"DTS_API__PORT": "2", "DTS_LOG__LEVEL": "error", "DTS_CONFIG": str(file)}
    loaded = config.load({"api.port": 3, "api.host": None}, environ=env)
    assert loaded.config.api == config.Config().api.__class__(port=3, max_body=2048)
    assert loaded.config.log.level == "error"
    assert loaded.sources == {"api.port": "command line", "api.max_body": str(file), "log.level": "DTS_LOG__LEVEL"}


@pytest.mark.parametrize(("text", "seconds"), [("20", 20.0), ("20.5", 20.5), ("90s", 90.0), ("1m30s", 90.0)])
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert load({"DTS_WORKER__LEASE": text}).worker.lease == seconds


def test_lists_and_labels_are_written_with_commas() -> None:
    worker = load({"DTS_WORKER__QUEUES": "a, b", "DTS_WORKER__LABELS": "gpu=a100, zone = x"}).worker
    assert worker.queues == ("a", "b")
    assert worker.labels == {"gpu": "a100", "zone": "x"}


def test_other_dts_variables_are_none_of_our_business() -> None:
    assert load({"DTS_RUN_ID": "x", "DTS_API_URL": "y", "DTS_TEST_FILE": "z"}) == config.Config()


def test_the_two_common_variables_have_short_names() -> None:
    loaded = load({"DTS_DATABASE_URL": "postgresql://a/b", "DTS_REDIS_URL": "redis://c"})
    assert (loaded.database.url, loaded.redis.url) == ("postgresql://a/b", "redis://c")


def test_secrets_come_from_files_and_from_credentials(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("postgresql://u:p@h/d\n")
    (tmp_path / "redis.url").write_text("redis://h\n")
    loaded = load({"DTS_DATABASE_URL_FILE": str(tmp_path / "secret"), "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (loaded.database.url, loaded.redis.url) == ("postgresql://u:p@h/d", "redis://h")
    assert load({"DTS_DATABASE__URL_FILE": str(tmp_path / "secret")}).database.url == "postgresql://u:p@h/d"


def test_every_error_is_reported_at_once_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[api]\nprot = 1\nport = "many"\n[nope]\n[worker]\nlabels = {a = 1}\n[log]\nlevel = 3\n')
    found = errors(
        {
            "DTS_X__Y": "1",
            "DTS_WORKER__LEASE": "1s",
            "DTS_WORKER__DRAIN_TIMEOUT": "soon",
            "DTS_DATABASE_URL": "mysql://secret",
            "DTS_DATABASE__URL": "postgresql://twice",
            "DTS_REDIS_URL_FILE": str(tmp_path / "missing"),
        },
        file,
    )
    for part in (
        f"{file}: unknown key prot in [api]; there are host, port, ",
        f"{file}: api.port: Expected `int`, got `str`",
        f"{file}: unknown section [nope]",
        f"{file}: worker.labels: Expected `str`, got `int`",
        f"{file}: log.level: ",
        "DTS_X__Y: unknown section x",
        "DTS_WORKER__LEASE: worker.lease: Expected `float` >= 5.0 (it is '1s')",
        "DTS_WORKER__DRAIN_TIMEOUT: worker.drain_timeout: 'soon' is no duration",
        "database.url is already set by DTS_DATABASE",
        "DTS_REDIS_URL_FILE: ",
    ):
        assert any(part in error for error in found), (part, found)
    assert not any("secret" in error for error in found if "mysql" in error)


def test_development_mode_is_for_this_machine_only() -> None:
    assert load({"DTS_API__HOST": "0.0.0.0"}).api.host == "0.0.0.0"
    (error,) = errors({"DTS_API__HOST": "0.0.0.0", "DTS_AUTH__DEVELOPMENT": "true"})
    assert "must be a loopback address" in error
    assert load({"DTS_API__HOST": "::1", "DTS_AUTH__DEVELOPMENT": "True"}).auth.development


@pytest.mark.parametrize("text", ["no toml", "api = 3", "\xff".encode("latin-1").decode("latin-1") + "="])
def test_a_file_that_is_no_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text, encoding="latin-1")
    assert len(errors({}, file)) == 1
    assert len(errors({}, tmp_path / "missing.toml")) == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p:w@h/d", "postgresql://u:***@h/d"),
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://h/d?sslkey=k&sslpassword=secret", "postgresql://h/d?sslkey=k&sslpassword=***"),
        ("rediss://h/0?ssl_password=secret&db=1", "rediss://h/0?ssl_password=***&db=1"),
        ("unix:///run/x.sock?db=0", "unix:///run/x.sock?db=0"),
        ("postgresql://u:p/w?x@h/d", "postgresql://u:***@h/d"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert config.redact_url(url) == shown


TORN = [
    template.format(password)
    for template in ("postgresql://u:{}@h/d", "redis://:{}@h:6379/0", "rediss://:{}@h/0")
    for password in ("hunter#2", "hunter/2", "hunter?2", "hunter[2", "hunter]2", "12#hunter", "12/hunter", "12?hunter")
]


@pytest.mark.parametrize("ca_file", ["", "/etc/ca.pem"])
@pytest.mark.parametrize(
    "url",
    [*TORN, "postgresql://u:hunter@2@h/d", "postgresql://hunter:port/d", "postgresql://hunter/d?port=x", "redis://h:x"],
)
def test_a_url_that_cannot_be_read_is_refused_with_the_likely_reason_and_not_shown(url: str, ca_file: str) -> None:
    kind = "DATABASE" if url.startswith("postgresql") else "REDIS"
    found = errors({f"DTS_{kind}_URL": url, f"DTS_{kind}__CA_FILE": ca_file})
    assert found[0].startswith(f"DTS_{kind}_URL: {kind.lower()}.url: the URL cannot be read: ")
    assert not any("hunter" in error for error in found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///d",
        "postgresql://u:p%23%2F%3F%5B%40w@h:5432/d",
        "postgresql://u@h1:5432,h2/d?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/d",
        "postgresql://u@/d?host=%2Frun%2Fa:b&port=5433",
        "postgresql://h/d?user=me@server&password=p%3Dw",
        "redis://h",
        "redis://:p%23w@[::1]:6379/0",
        "redis://me:p@w@h:6379/0",
        "unix:///run/x.sock?db=1",
        "unix://u:p@/run/a@b.sock",
    ],
)
def test_a_url_that_says_what_drivers_expect_is_taken_as_it_is(url: str) -> None:
    kind = "database" if url.startswith("postgresql") else "redis"
    assert getattr(load({f"DTS_{kind.upper()}_URL": url}), kind).url == url


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    loaded = config.load({"worker.labels": "a=b", "api.port": 9}, environ={})
    file = tmp_path / "shown.toml"
    file.write_text(config.show(loaded))
    assert config.load({}, environ={}, file=file).config == loaded.config


def test_settings_travel_to_another_process_through_its_environment() -> None:
    env = config.to_environment({"worker.queues": ("a", "b"), "api.port": 7, "database.url": "postgresql://x/y"})
    loaded = load(env)
    assert (loaded.worker.queues, loaded.api.port, loaded.database.url) == (("a", "b"), 7, "postgresql://x/y")


def test_no_leader_may_be_silent_for_longer_than_one_is_counted_on() -> None:
    assert load(scheduler__lock_ttl=LEADER_SILENT_AFTER).scheduler.lock_ttl == LEADER_SILENT_AFTER
    (error,) = errors({"DTS_SCHEDULER__LOCK_TTL": str(LEADER_SILENT_AFTER + 1)})
    assert "scheduler.lock_ttl" in error


@pytest.mark.parametrize("labels", [{}, {"gpu": "a100,h100", "a,b=c": " x "}, {"zone": "a"}])
def test_commas_in_lists_and_labels_survive_the_way_to_another_process(labels: dict[str, str]) -> None:
    env = config.to_environment({"worker.labels": labels, "worker.queues": ("a,b", "c"), "auth.open": ()})
    loaded = load(env)
    assert (loaded.worker.labels, loaded.worker.queues, loaded.auth.open) == (labels, ("a,b", "c"), ())


def test_text_that_only_begins_as_json_is_an_error() -> None:
    (error,) = errors({"DTS_WORKER__LABELS": '{"gpu": 1'})
    assert error.startswith("DTS_WORKER__LABELS: worker.labels: ")


def test_a_secret_that_stands_in_a_file_travels_as_the_name_of_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("y" * 40 + "\n")
    (tmp_path / "redis.url").write_text("redis://h\n")
    monkeypatch.chdir(tmp_path)
    env = {
        "PATH": "/bin",
        "DTS_RUN_ID": "x",
        "DTS_CONFIG": "other.toml",
        "DTS_API__PORT": "1",
        "DTS_DATABASE_URL": "postgresql://a/b",
        "DTS_AUTH__JWT_SECRET_FILE": "secret",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    given = {"auth.jwt_issuer": "i", "auth.jwt_audience": "a"}
    loaded = config.load(given, environ={**env, "DTS_CONFIG": ""})
    for variable in config.variables(env):
        del env[variable]
    assert set(env) == {"PATH", "DTS_RUN_ID", "CREDENTIALS_DIRECTORY"}
    handed_on = config.to_environment(loaded.given(), loaded.files)
    assert not any("yyy" in value for value in handed_on.values())
    monkeypatch.chdir("/")
    assert load({**env, **handed_on}) == loaded.config


def test_the_example_file_states_the_defaults() -> None:
    example = Path(__file__).parents[2] / "conf/dts.toml"
    assert config.load({}, environ={}, file=example).config == config.Config()


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ({"DTS_AUTH__JWT_SECRET": "short"}, "32 bytes"),
        ({"DTS_AUTH__JWT_SECRET": "x" * 32}, "need an issuer"),
        ({"DTS_AUTH__JWT_ISSUER": "i", "DTS_AUTH__JWT_AUDIENCE": "a"}, "need an issuer, an audience"),
        ({"DTS_AUTH__JWT_JWKS_URL": "http://example.org/jwks"}, "https://"),
        ({"DTS_AUTH__OPEN": "command:define"}, "auth.open"),
    ],
)
def test_tokens_need_everything_that_makes_them_trustworthy(env: dict[str, str], part: str) -> None:
    assert any(part in error for error in errors(env))


def test_the_secret_of_tokens_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "auth.jwt_secret").write_text("y" * 40 + "\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DTS_AUTH__JWT_ISSUER": "i", "DTS_AUTH__JWT_AUDIENCE": "a"}
    loaded = config.load({}, environ=env)
    assert loaded.config.auth.jwt_secret == "y" * 40
    assert "yyy" not in config.show(loaded)
    assert not any("yyy" in error for error in errors({"DTS_AUTH__JWT_SECRET": "yyyy"}))


@pytest.mark.parametrize(
    "undone", ["sslmode=disable", "sslmode=require", "sslmode=verify-ca", "sslrootcert=%2Ftmp%2Fother.pem"]
)
def test_a_url_does_not_undo_the_authority_that_the_database_is_to_be_vouched_for_by(undone: str) -> None:
    (error,) = errors({"DTS_DATABASE_URL": f"postgresql://a/b?{undone}", "DTS_DATABASE__CA_FILE": "/etc/ca.pem"})
    assert error.startswith("database.ca_file: ")
    assert undone.replace("%2F", "/") in error


@pytest.mark.parametrize(
    "undone", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_ca_certs=%2Ftmp%2Fother.pem"]
)
def test_a_url_does_not_undo_the_authority_that_redis_is_to_be_vouched_for_by(undone: str) -> None:
    (error,) = errors({"DTS_REDIS_URL": f"rediss://a/0?{undone}", "DTS_REDIS__CA_FILE": "/etc/ca.pem"})
    assert error.startswith("redis.ca_file: ")
    assert undone.replace("%2F", "/") in error


def test_a_url_to_which_the_authority_was_added_is_loaded_again_as_it_is() -> None:
    url = load({"DTS_DATABASE_URL": "postgresql://a/b?target=x", "DTS_DATABASE__CA_FILE": "/etc/ca.pem"}).database.url
    assert url == "postgresql://a/b?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&target=x"
    assert load({"DTS_DATABASE_URL": url, "DTS_DATABASE__CA_FILE": "/etc/ca.pem"}).database.url == url
