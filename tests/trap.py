"""A network whose only way out is a trap: processes in it think that they reach the internet, and every attempt is counted.

Two network namespaces of Linux, joined by a cable. Inside, the default route and the name server lead to the other one, where
every address is at home: names are answered, connections are refused, and whatever comes is noted. Needs root and `ip`
(iproute2).
"""

import secrets
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# For tests of networks (RFC 2544, RFC 5737): nobody's.
INSIDE, OUTSIDE, ANYWHERE = "198.18.255.2", "198.18.255.1", "198.51.100.7"
PREFIX = 24
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
TCP, UDP = 6, 17
SYN, ACK = 0x02, 0x10


@dataclass(frozen=True)
class Trap:
    """A command's way into the network, and what was counted there."""

    namespace: str
    notes: Path

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *argv]

    def attempts(self) -> list[str]:
        """One line for each: `dns config.example.org`, `tcp 198.51.100.7:443`."""
        return self.notes.read_text().splitlines()


@contextmanager
def trapped(folder: Path) -> Iterator[Trap]:
    """A trap that is up when the block begins and gone when it ends."""
    name = f"trap-{secrets.token_hex(3)}"
    inside, outside = f"{name}-in", f"{name}-out"
    resolver = Path("/etc/netns", inside)
    notes = folder / "attempts"
    notes.touch()
    catcher = None
    try:
        resolver.mkdir(parents=True)  # what is in it takes the place of /etc/… for `ip netns exec`
        (resolver / "resolv.conf").write_text(f"nameserver {OUTSIDE}\noptions timeout:1 attempts:1\n")
        for namespace in (inside, outside):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", inside, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outside)
        for namespace, address in ((inside, INSIDE), (outside, OUTSIDE)):
            _ip("-n", namespace, "address", "add", f"{address}/{PREFIX}", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", inside, "route", "add", "default", "via", OUTSIDE)
        _ip("-n", outside, "route", "add", "local", "default", "dev", "lo")  # every address is at home there
        command = ["ip", "netns", "exec", outside, sys.executable, __file__, str(notes)]
        catcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert catcher.stdout is not None and catcher.stdout.readline() == "ready\n"
        yield Trap(inside, notes)
    finally:
        if catcher is not None:
            catcher.kill()
            catcher.wait()
        for namespace in (inside, outside):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
        shutil.rmtree(resolver, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _question(message: bytes) -> str:
    """The name that a DNS message asks for (RFC 1035)."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode(errors="replace"))
        at += 1 + message[at]
    return ".".join(labels)


def _answer(message: bytes) -> bytes:
    """`ANYWHERE`, to a question for an address; nothing to any other."""
    end = message.index(b"\0", 12) + 5
    question = message[12:end]
    has = question[-4:-2] == b"\0\x01"  # A
    head = message[:2] + struct.pack(">HHHHH", 0x8180, 1, int(has), 0, 0)
    record = struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(ANYWHERE)
    return head + question + (record if has else b"")


def catch(notes: Path) -> None:
    """Answers names and notes every packet that asks for something: a name, a connection, or anything over UDP."""
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((OUTSIDE, 53))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", 0))
    print("ready", flush=True)
    with notes.open("a", buffering=1) as out:
        while True:
            frame = wire.recv(65535)
            if struct.unpack(">H", frame[12:14])[0] != ETH_P_IP:
                continue  # neighbours are looked for, and IPv6 says hello
            packet = frame[14:]
            length, protocol = 4 * (packet[0] & 15), packet[9]
            source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
            if source != INSIDE:
                continue
            port = struct.unpack(">H", packet[length + 2 : length + 4])[0]
            if protocol == UDP and port == 53:
                message, sender = dns.recvfrom(65535)
                out.write(f"dns {_question(message)}\n")
                dns.sendto(_answer(message), sender)
            elif protocol == TCP and packet[length + 13] & (SYN | ACK) == SYN:
                out.write(f"tcp {target}:{port}\n")
            elif protocol not in (TCP, 1):  # 1: ICMP, which answers
                out.write(f"{'udp' if protocol == UDP else protocol} {target}:{port}\n")


if __name__ == "__main__":
    catch(Path(sys.argv[1]))
