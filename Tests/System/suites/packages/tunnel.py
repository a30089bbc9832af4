"""Configuration files of the two ends of a tunnel."""

import pathlib
import subprocess


def key(program: pathlib.Path) -> tuple[str, str]:
    """A private key and its public key."""
    private = subprocess.check_output([program, "genkey"], text=True).strip()
    public = subprocess.check_output([program, "pubkey"], input=private, text=True).strip()
    return private, public


def pair(program: pathlib.Path, ours: str, theirs: str) -> tuple[str, str]:
    """Both configurations, for these outer addresses; the inner ones are 10.9.0.1 and 10.9.0.2."""
    keys = key(program), key(program)
    texts = []
    for index, endpoint in enumerate((theirs, ours)):
        texts.append(
            f"[Interface]\nPrivateKey = {keys[index][0]}\nListenPort = 51820\n"
            f"Address = 10.9.0.{index + 1}/24, fd09::{index + 1}/64\n"
            f"[Peer]\nPublicKey = {keys[1 - index][1]}\nEndpoint = {endpoint}:51820\n"
            f"AllowedIPs = 10.9.0.{2 - index}/32, fd09::{2 - index}/128\n"
        )
    return texts[0], texts[1]
