"""Interprets targets (gRPC names), as the C++ client does."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Optional
from urllib.parse import quote, unquote_to_bytes

from attnd.errors import InvalidArgument

# The same as attnctl's (client/attnctl/server.cc).
_DEFAULT = "127.0.0.1:50051"
_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "passthrough")
_FORMS = "host:port, dns:///name:port or unix:///path"
_UNIX_NAMES = "unix:path or unix:///absolute/path, where %XX stands for a byte (%20 a space, %23 #, %25 %, %3F ?)"


def resolve(target: Optional[str]) -> str:
    """The target, or else ATTND_SERVER in the environment, or else 127.0.0.1:50051. Raises InvalidArgument."""
    name = (os.environ.get("ATTND_SERVER") or _DEFAULT) if target is None else target
    if not isinstance(name, str):
        raise InvalidArgument.of("target", _FORMS, repr(name)[:80])
    if not name:
        raise InvalidArgument.of("target", _FORMS, "an empty string")
    if name.startswith("unix:") and unix_path(name) in (None, ""):
        raise InvalidArgument.of("target", _UNIX_NAMES, name)
    if name.startswith("/"):
        raise InvalidArgument.of("target", f"unix://{name} for a Unix socket, or {_FORMS}", name)
    # gRPC would look up such a URL as a host name.
    scheme, slashes, rest = name.partition("://")
    if slashes and scheme in ("http", "https", "grpc", "grpcs", "tcp"):
        raise InvalidArgument.of("target", f"{rest.rstrip('/')}, without a scheme", name)
    return name


def unix_path(target: str) -> Optional[str]:
    """The path in a name of the unix scheme; it may be relative. None for other names, and for names that gRPC's server
    and client interpret differently."""
    if not target.startswith("unix:"):
        return None
    name = target[5:]
    if name.startswith("//"):
        # In a URI, the host is between "//" and the next "/"; a Unix socket has none.
        name = name[2:]
        if not name.startswith("/"):
            return None
    if re.search(r"[?#]|%(?![0-9A-Fa-f]{2})", name):
        return None
    path = unquote_to_bytes(name)
    return None if b"\0" in path else os.fsdecode(path)


def for_grpc(target: str) -> str:
    """The target in a spelling that all gRPC clients interpret in the same way."""
    path = unix_path(target)
    if path is None:
        return target
    return ("unix://" if path.startswith("/") else "unix:") + quote(os.fsencode(path), safe="/-._~")


def is_local(target: str) -> bool:
    """Whether every address of `target` is on this host: a Unix socket, "localhost", 127.0.0.0/8 or ::1, in any of the
    forms that gRPC accepts. Names are not looked up: one that /etc/hosts gives a loopback address counts as remote."""
    scheme, colon, rest = target.partition(":")
    scheme = scheme.lower()
    if not colon:
        rest = target
    elif scheme.startswith("unix"):
        return scheme in _SCHEMES
    elif scheme in _SCHEMES:
        # Skip "//authority/": for dns it is the DNS server to ask.
        if rest.startswith("//"):
            rest = rest[2:].partition("/")[2]
        rest = rest[1:] if rest.startswith("/") else rest
    else:
        rest = target
    addresses = unquote_to_bytes(rest).decode("utf-8", "replace")
    return all(_is_loopback(address) for address in addresses.split(","))


def _host_of(address: str) -> str:
    """The host in "host:port", "host", "[address]:port" or a bare IPv6 address."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback(address: str) -> bool:
    host = _host_of(address).lower()
    host = host[:-1] if host.endswith(".") else host
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool(mapped.is_loopback if mapped is not None else ip.is_loopback)
