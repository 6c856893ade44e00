"""The questions, in the order in which a report answers them. A new one is a module here and a line below."""

from __future__ import annotations

from bench.question import Question
from bench.questions.auth_cost import AuthCost
from bench.questions.backlog import Backlog
from bench.questions.batch_submit import BatchSubmit
from bench.questions.bulk_true import BulkTrue
from bench.questions.capture import Capture
from bench.questions.chain import Chain
from bench.questions.costs import Costs
from bench.questions.cron_storm import CronStorm
from bench.questions.decode_cost import DecodeCost
from bench.questions.dispatch_only import DispatchOnly
from bench.questions.failover import Failover
from bench.questions.fan_out_in import FanOutIn
from bench.questions.idle import Idle
from bench.questions.many_workers import ManyWorkers
from bench.questions.old_snapshot import OldSnapshot
from bench.questions.peers_bulk import PeersBulk
from bench.questions.peers_fire import PeersFire
from bench.questions.peers_flows import PeersFlows
from bench.questions.peers_latency import PeersLatency
from bench.questions.peers_loss import PeersLoss
from bench.questions.priority import Priority
from bench.questions.recovery import Recovery
from bench.questions.redis_less import RedisLess
from bench.questions.scaling import Scaling
from bench.questions.single_posts import SinglePosts
from bench.questions.spawn_limit import SpawnLimit
from bench.questions.spread_schedules import SpreadSchedules
from bench.questions.sse_fan_out import SseFanOut
from bench.questions.submit_to_start import SubmitToStart
from bench.questions.wide_dag import WideDag

QUESTIONS: tuple[type[Question], ...] = (
    SpawnLimit,
    DispatchOnly,
    BulkTrue,
    Costs,
    Capture,
    SubmitToStart,
    BatchSubmit,
    SinglePosts,
    Chain,
    FanOutIn,
    WideDag,
    CronStorm,
    SpreadSchedules,
    DecodeCost,
    SseFanOut,
    Backlog,
    OldSnapshot,
    Priority,
    Scaling,
    RedisLess,
    Failover,
    Recovery,
    Idle,
    ManyWorkers,
    AuthCost,
    PeersBulk,
    PeersLatency,
    PeersLoss,
    PeersFlows,
    PeersFire,
)
