"""Judges what is open: addresses that Ray listens at, and its token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raysandbox.report.doctor.lines import Line
from raysandbox.runtime.listening import Listener
from raysandbox.runtime.machine import Machine

__all__ = ["auth_line", "port_lines"]

_TOKEN = "export RAY_AUTH_MODE=token on every node and client before Ray starts (docs/deployment)"
_LOOPBACK = "start it on loopback (--node-ip-address=127.0.0.1 --dashboard-host=127.0.0.1)"


def port_lines(machine: Machine, node: str = "") -> Iterator[Line]:
    """What can be reached of Ray on a machine; one line per kind of process that is open, one for the rest."""
    by_kind: dict[tuple[str, str, bool], list[Listener]] = {}
    for one in machine.listeners:
        if not one.is_loopback:
            by_kind.setdefault((one.what, one.auth, one.tls), []).append(one)
    for (what, auth, tls), found in by_kind.items():
        where = f"open at {_addresses(found)}"
        if auth == "token":
            plain = "gRPC by TLS, HTTP plain" if tls else "plain HTTP and gRPC"
            fix = "keep it in a private network, reach it by an SSH tunnel or TLS"
            yield Line("security", f"port of {what}", "yellow", f"{where}, asks for a token; {plain}", fix, node)
        elif auth == "none":
            found_text = f"{where} without a token: whoever reaches it runs code here"
            yield Line("security", f"port of {what}", "red", found_text, f"{_LOOPBACK}, or {_TOKEN}", node)
        else:
            fix = "run doctor as the user that started Ray"
            yield Line("security", f"port of {what}", "red", f"{where}, perhaps without a token", fix, node)
    inside = [one for one in machine.listeners if one.is_loopback]
    if inside and not by_kind:
        kinds = ", ".join(dict.fromkeys(one.what for one in inside))
        yield Line("security", "ports of Ray", "green", f"on loopback only ({kinds})", "", node)
    elif not machine.listeners:
        yield Line("security", "ports of Ray", "green", "no Ray listens on this machine", "", node)


def auth_line(machine: Machine) -> Line:
    """Whether this machine's programs send Ray's token, and who can read it."""
    mode, token = machine.auth_mode.lower(), machine.token
    if token.open_to:
        fix = f"chmod 600 {token.source}"
        return Line("security", "Ray's token", "yellow", f"{token.open_to} can read {token.source}", fix)
    if mode == "token":
        if token.source:
            return Line("security", "Ray's token", "green", f"RAY_AUTH_MODE=token, found in {token.source}")
        fix = "`ray get-auth-token --generate`, or RAY_AUTH_TOKEN_PATH=FILE with the cluster's"
        return Line("security", "Ray's token", "red", "RAY_AUTH_MODE=token, but there is no token", fix)
    if mode:
        found = f"RAY_AUTH_MODE={machine.auth_mode}: Ray runs code for whoever connects"
        return Line("security", "Ray's token", "yellow", found, "export RAY_AUTH_MODE=token")
    where = f"found in {token.source}" if token.source else "a local Ray makes one"
    found = f"RAY_AUTH_MODE is not set; {where}; `ray job …` sends it only after export RAY_AUTH_MODE=token"
    return Line("security", "Ray's token", "note", found)


def _addresses(listeners: Sequence[Listener]) -> str:
    places = sorted({f"{_shown(one.address)}:{one.port}" for one in listeners})
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
