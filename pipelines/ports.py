"""Servers on this machine: the way to them, and their ports, before one is started."""

import socket
from collections.abc import MutableMapping

from components.errors import UserError

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Let no proxy stand between this machine and itself: add it to `no_proxy` and `NO_PROXY`, behind the user's hosts.

    Both, because programs differ in which of them they read first.
    """
    given = {name: environment.get(name, "") for name in ("no_proxy", "NO_PROXY")}
    for name, other in zip(given, reversed(given), strict=True):
        hosts = [host.strip() for host in (given[name] or given[other]).split(",") if host.strip()]
        if "*" not in hosts:  # all hosts already; Python takes it for that only where it stands alone
            environment[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def check_free(port: int, advice: str) -> None:
    """
    Raises:
        UserError: another program has the port, or it may not be had; `advice` says what to do.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"PORT: port {port} cannot be had ({error}). {advice}") from error
