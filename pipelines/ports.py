"""Ports on this machine, before a server is started on one."""

import socket

from components.errors import UserError

HOST = "127.0.0.1"


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
