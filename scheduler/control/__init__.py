"""The scheduler role: one leader decides when work is due and mends what broke; standbys watch and wait.

`role` reads from the outside in; `reign` holds the duties of whoever leads, one module for each.
"""
