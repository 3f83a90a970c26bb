"""The soak: a set of real replicas over millions of packets, of which nothing may grow with time.

`make soak` runs it: [README.md](README.md) says what is looked at and how growth is told from noise.
"""
