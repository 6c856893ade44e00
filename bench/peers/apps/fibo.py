"""The work of Windmill's published benchmark: Fibonacci numbers in the slow way; `fibo.py N` computes one."""

from __future__ import annotations

import sys


def fibo(n: int) -> int:
    return n if n < 2 else fibo(n - 1) + fibo(n - 2)


if __name__ == "__main__":
    print(fibo(int(sys.argv[1])))
