"""The scheduler role: one leader decides when work is due and mends what broke; standbys watch and wait.

`role.run` reads top-down: elect → fire → promote → reap → reconcile → retain, one module per step.
"""
