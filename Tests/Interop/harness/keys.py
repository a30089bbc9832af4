"""Keys, made by wg(8) itself."""

import base64
import dataclasses
import subprocess


def wg(*arguments: str, text: str | None = None) -> str:
    result = subprocess.run(
        ["wg", *arguments], input=text, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """A private and its public key, in base64 as wg(8) writes them."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> "KeyPair":
        private = wg("genkey")
        return cls(private, wg("pubkey", text=private))


def preshared_key() -> str:
    return wg("genpsk")


def hexadecimal(key: str) -> str:
    """A base64 key as the UAPI writes it."""
    return base64.b64decode(key).hex()
