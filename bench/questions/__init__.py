"""The questions, in the order in which a report answers them. A new one is a module here and a line below."""

from __future__ import annotations

from bench.question import Question
from bench.questions.auth_cost import AuthCost
from bench.questions.backlog import Backlog
from bench.questions.batch_submit import BatchSubmit
from bench.questions.bulk_true import BulkTrue
from bench.questions.chain import Chain
from bench.questions.cron_storm import CronStorm
from bench.questions.decode_cost import DecodeCost
from bench.questions.idle import Idle
from bench.questions.old_snapshot import OldSnapshot
from bench.questions.single_posts import SinglePosts
from bench.questions.spawn_limit import SpawnLimit
from bench.questions.sse_fan_out import SseFanOut
from bench.questions.submit_to_start import SubmitToStart

QUESTIONS: tuple[type[Question], ...] = (
    SpawnLimit,
    BulkTrue,
    SubmitToStart,
    BatchSubmit,
    SinglePosts,
    Chain,
    CronStorm,
    DecodeCost,
    SseFanOut,
    Backlog,
    OldSnapshot,
    Idle,
    AuthCost,
)
