"""What is read again when a signal says that it has changed: keys, and how much is logged."""

from __future__ import annotations

from typing import Any, Final

from ftnids import log
from ftnids.config import Config, load
from ftnids.errors import ConfigError, PeerError
from ftnids.peers import keys
from ftnids.peers.transport import Transport

KEYS: Final = {"public_key", "old_public_key"}


def identity(config: Config, *, optional: bool = True, owner: int | None = None) -> keys.Identity:
    """What the files that `config` names make of this replica.  PeerError if one is missing, unsafe or malformed.

    `optional`: whether the secret may be missing where the configuration allows it; `owner`: as in `keys.identify`.
    """
    cluster = config.cluster
    public = [member.public_keys for member in cluster.member]
    may_lack = optional and config.secret_optional
    return keys.identify(
        cluster.name, cluster.secret_file, cluster.key_file, public, config.me, optional=may_lack, owner=owner
    )


def renew(config: Config, transport: Transport, seed: int) -> Config:
    """Read the configuration file and the key files again, and let `transport` go on with the keys that they hold.

    Returns the configuration that is in force from now on: `config` with other keys and another `log`.  What else has
    changed waits for a restart, a new secret (another packet hash `seed`) for one of the whole set; what is wrong
    changes nothing.  Either is said.
    """
    logger = log.get("rekey")
    try:
        new = load(config.source, config.overrides)
        if new.replica.name != config.replica.name or len(new.cluster.member) != len(config.cluster.member):
            raise ConfigError(f"{config.source}: another replica.name or number of members needs a restart of the set")
        without = seed == keys.cluster_seed(keys.public_secret(config.cluster.name))
        made = identity(new, optional=without)  # a secret that was there does not turn into none
        if made.seed != seed:
            raise PeerError(f"{new.cluster.secret_file}: another secret needs a restart of the whole set")
        other = transport.renew(made.keys)
    except (ConfigError, PeerError) as error:
        logger.error("keys_not_renewed", reason=str(error), hint="nothing has changed; correct it and signal again")
        return config
    if new.log != config.log:
        log.configure(new.log.level, new.log.format)
        logger.warning("settings_changed", settings=_differences(config.log.model_dump(), new.log.model_dump(), "log."))
    waiting = sorted(_differences(_without_keys(config), _without_keys(new)))
    if waiting:
        logger.warning("settings_wait_for_a_restart", settings=waiting)
    before, after = config.cluster.member, new.cluster.member
    changed = [b.name for b, a in zip(before, after, strict=True) if b.public_keys != a.public_keys]
    own = str(new.cluster.key_file or new.cluster.secret_file)
    if other:
        logger.info("keys_renewed", changed=changed, own=own)
    else:
        logger.info("keys_unchanged", own=own)
    members = [b.model_copy(update={key: getattr(a, key) for key in KEYS}) for b, a in zip(before, after, strict=True)]
    cluster = config.cluster.model_copy(update={"member": members, "key_file": new.cluster.key_file})
    return config.model_copy(update={"cluster": cluster, "log": new.log})


def _without_keys(config: Config) -> dict[str, Any]:
    """All settings that a signal does not change."""
    tables = config.model_dump(exclude={"log"})
    del tables["cluster"]["key_file"]
    for member in tables["cluster"]["member"]:
        for key in KEYS:
            del member[key]
    return tables


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The names of the settings that differ."""
    found: list[str] = []
    for key, value in old.items():
        if isinstance(value, dict):
            found += _differences(value, new[key], f"{prefix}{key}.")
        elif value != new[key]:
            found.append(f"{prefix}{key}")
    return found
