"""What an expression means, and what is said about one that means nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.domain.cron import parse_schedule

START = datetime(2026, 1, 1, tzinfo=UTC)


def fires(expression: str, count: int, *, name: str = "job") -> list[str]:
    schedule = parse_schedule(expression, "UTC", hash_id=name)
    return [f"{fire:%Y-%m-%d %H:%M:%S}" for fire in schedule.between(START, datetime(2099, 1, 1, tzinfo=UTC), count)]


def days(expression: str, count: int) -> list[str]:
    return [fire[5:10] for fire in fires(expression, count)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * *", ["2026-01-01 00:20:00", "2026-01-01 00:40:00"]),
        ("*/20 * * * * *", ["2026-01-01 00:00:20", "2026-01-01 00:00:40"]),  # six fields: seconds first
        ("15 30 8 * * *", ["2026-01-01 08:30:15", "2026-01-02 08:30:15"]),
        ("0 0 0 1 1 * 2027", ["2027-01-01 00:00:00"]),  # seven: the year last
        ("0 0 12 1 1 * 2030-2040/5", ["2030-01-01 12:00:00", "2035-01-01 12:00:00", "2040-01-01 12:00:00"]),
        ("@hourly", ["2026-01-01 01:00:00", "2026-01-01 02:00:00"]),
        ("@daily", ["2026-01-02 00:00:00", "2026-01-03 00:00:00"]),
        ("@midnight", ["2026-01-02 00:00:00"]),
        ("@weekly", ["2026-01-04 00:00:00", "2026-01-11 00:00:00"]),
        ("@monthly", ["2026-02-01 00:00:00"]),
        ("@yearly", ["2027-01-01 00:00:00"]),
        ("@ANNUALLY", ["2027-01-01 00:00:00"]),
        ("5/20 9 * * *", ["2026-01-01 09:05:00", "2026-01-01 09:25:00", "2026-01-01 09:45:00"]),
        ("00 07 * * 07", ["2026-01-04 07:00:00"]),
        ("0 0 * feb-MAR/1 *", ["2026-02-01 00:00:00"]),
        ("7-7 0 * * *", ["2026-01-01 00:07:00", "2026-01-02 00:07:00"]),  # croniter reads every minute
        ("0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 29 FEB ?", ["2028-02-29 00:00:00"]),
    ],
)
def test_an_expression_fires_at(expression: str, expected: list[str]) -> None:
    assert fires(expression, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * FRI-MON", ["01-02", "01-03", "01-04", "01-05", "01-09"]),
        ("0 0 * * 5-7", ["01-02", "01-03", "01-04", "01-09"]),
        ("0 0 * * 0-7", ["01-02", "01-03", "01-04"]),
        ("0 0 * NOV-FEB/3 *", ["02-01", "02-02"]),  # November and February
        ("0 0 L * *", ["01-31", "02-28", "03-31", "04-30"]),
        ("0 0 15,L * *", ["01-15", "01-31", "02-15", "02-28"]),
        ("0 0 * * MON#1", ["01-05", "02-02", "03-02"]),
        ("0 0 * * TUE#5", ["03-31", "06-30"]),
        ("0 0 * * 2#1,4#1", ["01-06", "02-03", "02-05"]),
        ("0 0 * * L5", ["01-30", "02-27"]),
        ("0 0 * * FRIL", ["01-30", "02-27"]),
        ("0 0 * * 7L", ["01-25", "02-22"]),
    ],
)
def test_days_are_chosen(expression: str, expected: list[str]) -> None:
    assert days(expression, 9)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 13 * FRI", ["01-02", "01-09", "01-13", "01-16"]),  # both restricted: either
        ("0 0 31 4 MON", ["04-06", "04-13"]),  # an impossible side adds nothing
        ("0 0 1-7 * MON#1", ["01-02", "01-03", "01-04", "01-05", "01-06", "01-07", "02-01"]),
        ("0 0 */2 * MON", ["01-05", "01-19", "02-09"]),  # begins with '*', as in Vixie cron: both
        ("0 0 13 * */5", ["02-13", "03-13", "09-13"]),  # the 13th, if Sunday or Friday
        ("0 0 13 * ?", ["01-13", "02-13"]),
    ],
)
def test_day_of_month_and_day_of_week_combine_as_in_vixie_cron(expression: str, expected: list[str]) -> None:
    assert days(expression, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "empty"),
        ("* * * *", "4 fields are too few"),
        ("daily", "1 field is too few"),
        ("* * * * * * * *", "8 fields are too many"),
        ("0 0 31 2 *", "never comes: day 31 is wanted, but the months chosen have 29 days"),
        ("0 0 30,31 2 *", "never comes"),
        ("0 0 31 4,6 ?", "have 30 days"),
        ("0 0 0 29 2 * 2027", "have 28 days"),
        ("0 0 0 13 3 */5 2027", "no day of the months chosen is also such a weekday"),
        ("0 30 * * *", "hour: 30 is out of range: 0 to 23"),
        ("60 * * * *", "minute: 60 is out of range: 0 to 59"),
        ("0 0 0 * *", "day of month: 0 is out of range: 1 to 31"),
        ("0 0 * 13 *", "month: 13 is out of range: 1 to 12"),
        ("0 0 * * 8", "day of week: 8 is out of range: 0 to 7"),
        ("0 0 0 * * * 2100", "year: 2100 is out of range: 1970 to 2099"),
        ("? * * * *", "minute: '?' stands only for day of month or day of week"),
        ("R * * * *", "write 'H'"),
        ("R(0-29)/5 * * * *", "write 'H'"),
        ("0 0 0 * * * H", "'H' would pick one year for good"),
        ("H(30-10) * * * *", "a range that rises"),
        ("H(0-99) * * * *", "a range that rises within 0 to 59"),
        ("0 0 15W * *", "'W' (nearest weekday) is not supported"),
        ("0 0 L-3 * *", "'L' is the last day of the month and stands alone"),
        ("0 0 * * L", "'L' needs a weekday"),
        ("0 0 * * MON#6", "there are 1 to 5"),
        ("0 0 * * MON#1,FRI", "mixes plain weekdays"),
        ("0 0 * FOO *", "month: 'FOO' is not understood"),
        ("0 0 * * monday", "day of week: 'MONDAY' is not understood"),
        ("1,,2 * * * *", "minute: '' is not understood"),
        ("-5 * * * *", "minute: '-5' is not understood"),
        ("50-10 * * * *", "write 50-59,0-10"),
        ("*/0 * * * *", "a step is 1 or more"),
        ("*/90 * * * *", "write @every 90m"),
        ("*-5 * * * *", "a range has two numbers"),
        ("٣ * * * *", "ASCII"),
        ("@reboot", "@reboot is not a time"),
        ("@fortnightly", "@fortnightly is unknown: write @hourly"),
        ("@every", "whole seconds"),
        ("@every 500ms", "whole seconds"),
        ("@every 0s", "whole seconds"),
        ("@every soon", "whole seconds"),
        ("* " * 1000, "1000 characters at most"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_wrong(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is what is checked, below
        parse_schedule(expression, "UTC", hash_id="job")
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("zone", "complaint"),
    [
        ("Mars/Olympus", "is no time zone: write an IANA name"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("", "is no time zone"),
        ("Europe", "is no time zone"),
        ("../etc/passwd", "is no time zone"),
        ("/etc/localtime", "is no time zone"),
        ("right/UTC", "is no time zone"),
        ("localtime", "is no time zone"),
        ("a\0b", "is no time zone"),
        ("x" * 5000, "is no time zone"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_likely_name(zone: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="is no time zone") as refusal:
        parse_schedule("@daily", zone, hash_id="job")
    assert complaint in str(refusal.value)


def test_every_counts_from_its_anchor_and_never_fires_at_or_before_it() -> None:
    anchor = datetime(2026, 5, 1, 10, 0, 7, 250_000, tzinfo=UTC)
    schedule = parse_schedule("@every 1m30s", "UTC", hash_id="job", anchor=anchor)
    first = datetime(2026, 5, 1, 10, 1, 37, tzinfo=UTC)
    assert schedule.next_after(START) == first
    assert schedule.next_after(anchor) == first
    assert schedule.next_after(first) == first + timedelta(seconds=90)
    assert schedule.previous_at_or_before(first) == first
    assert schedule.previous_at_or_before(first - timedelta(seconds=1)) is None
    assert schedule.count(int(anchor.timestamp()), int(anchor.timestamp()) + 900) == 10


def test_hashed_fields_depend_on_the_name_and_on_nothing_else() -> None:
    assert fires("H H * * *", 3, name="one") == fires("H H * * *", 3, name="one")
    assert len({fires("H H * * *", 1, name=f"task {i}")[0] for i in range(50)}) > 30
    minutes = {int(fire[14:16]) for fire in fires("H/15 * * * *", 8, name="one")}
    assert len(minutes) == 4
    assert max(minutes) - min(minutes) == 45
    assert all(0 <= int(fires("H(0-9) * * * *", 1, name=f"task {i}")[0][14:16]) <= 9 for i in range(50))


def test_a_hashed_day_of_month_exists_in_every_month() -> None:
    for i in range(100):
        assert len({fire[5:7] for fire in fires("H H H * *", 12, name=f"task {i}")}) == 12


def test_macros_are_not_hashed() -> None:
    assert fires("@daily", 1, name="one") == fires("@daily", 1, name="two") == ["2026-01-02 00:00:00"]


def test_a_schedule_whose_years_have_run_out_has_no_next_fire_but_a_previous_one() -> None:
    schedule = parse_schedule("0 0 0 1 1 * 2020-2022", "Asia/Tokyo", hash_id="job")
    assert schedule.next_after(START) is None
    assert schedule.previous_at_or_before(START) == datetime(2021, 12, 31, 15, tzinfo=UTC)
    assert schedule.next_after(datetime(1999, 1, 1, tzinfo=UTC)) == datetime(2019, 12, 31, 15, tzinfo=UTC)


def test_a_leap_day_on_a_given_weekday_is_found_across_the_year_2100() -> None:
    schedule = parse_schedule("0 0 29 2 */7", "UTC", hash_id="job")  # both, as it begins with '*': a Sunday
    assert schedule.next_after(datetime(2088, 3, 1, tzinfo=UTC)) == datetime(2128, 2, 29, tzinfo=UTC)


def test_equal_arguments_share_one_schedule_and_the_name_matters_only_to_hashed_ones() -> None:
    assert parse_schedule("0  5 * * *", "UTC", hash_id="a") is parse_schedule("0 5 * * *", "UTC", hash_id="b")
    assert parse_schedule("H 5 * * *", "UTC", hash_id="a") is not parse_schedule("H 5 * * *", "UTC", hash_id="b")


def test_the_ends_of_time_are_no_error() -> None:
    for expression in ("* * * * *", "0 0 29 2 *", "@every 1h"):
        schedule = parse_schedule(expression, "Pacific/Kiritimati", hash_id="job")
        assert schedule.next_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) is None
        assert schedule.next_after(datetime(1, 1, 1, tzinfo=UTC)) is not None
        assert schedule.previous_at_or_before(datetime(1, 1, 1, tzinfo=UTC)) is None
        assert schedule.previous_at_or_before(datetime(9999, 12, 31, tzinfo=UTC)) is not None
