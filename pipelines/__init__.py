import os

from pipelines.ports import spare_loopback

spare_loopback(os.environ)  # before any client reads it; the processes that are started from here inherit it
