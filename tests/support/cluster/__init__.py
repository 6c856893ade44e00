"""A whole system of real processes on servers of its own, every part of which can be broken and mended."""

from tests.support.cluster.cluster import Cluster, cluster
from tests.support.cluster.member import Member

__all__ = ["Cluster", "Member", "cluster"]
