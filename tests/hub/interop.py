"""Reads with huggingface_hub what pensieve wrote, and the other way round.

tests/hub/interop.rs runs it (`cargo xtask hub`), against a hub of its own that has org/model with the
commits `aaaa...` (main, v1) and `bbbb...` (next). The argument is the pensieve binary; HF_HOME and
HF_ENDPOINT say the rest.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, scan_cache_dir, snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import _CACHED_NO_EXIST

PENSIEVE = sys.argv[1]
CACHE = Path(constants.HF_HUB_CACHE)
REPO = CACHE / "models--org--model"
A, B = "a" * 40, "b" * 40
NEEDED = {
    "README.md",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def pensieve(*arguments, **environment):
    done = subprocess.run(
        [PENSIEVE, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name in NEEDED}


def links(folder):
    return {p.name: os.readlink(p) for p in Path(folder).iterdir() if p.name in NEEDED}


def clear():
    shutil.rmtree(CACHE, ignore_errors=True)


print("huggingface_hub", huggingface_hub.__version__)

# What pensieve wrote, Python finds without a network.
clear()
ours = pensieve("pull", "org/model").strip()
pensieve("pull", "org/model@next")
found = snapshot_download("org/model", local_files_only=True)
assert Path(found) == Path(ours), (found, ours)
assert {p.name for p in Path(found).iterdir()} == NEEDED
assert snapshot_download("org/model", revision="next", local_files_only=True).endswith(B)
assert snapshot_download("org/model", revision=A, local_files_only=True) == found
assert try_to_load_from_cache("org/model", "config.json") == os.path.join(found, "config.json")
assert try_to_load_from_cache("org/model", "generation_config.json", revision=A) is _CACHED_NO_EXIST
scan = scan_cache_dir()
assert not scan.warnings, scan.warnings
(repo,) = scan.repos
revisions = {r.commit_hash: r for r in repo.revisions}
assert set(revisions) == {A, B} and revisions[A].refs == {"main"} and revisions[B].refs == {"next"}
assert {f.file_name for f in revisions[A].files} == NEEDED
listed = json.loads(pensieve("list", "--json"))
assert [m["name"] for m in listed] == ["org/model"] and listed[0]["size_bytes"] == repo.size_on_disk
our_contents, our_links = contents(found), links(found)

# Python fetches what pensieve left out, and nothing else of it.
before = {p.name: p.stat().st_ino for p in (REPO / "blobs").iterdir()}
assert snapshot_download("org/model") == found
after = {p.name: p.stat().st_ino for p in (REPO / "blobs").iterdir()}
assert before.items() <= after.items() and len(after) > len(before)
assert links(found) == our_links

# What Python wrote, pensieve finds without a network, and it is the same to the byte.
clear()
theirs = snapshot_download("org/model")
assert contents(theirs) == our_contents and links(theirs) == our_links
assert pensieve("pull", "org/model", HF_HUB_OFFLINE="1").strip() == theirs
shown = json.loads(pensieve("show", "--json", "org/model"))
assert shown["path"] == theirs and shown["licence"] == "apache-2.0" and shown["loadable"] is True
assert pensieve("pull", "org/model").strip() == theirs
assert not list((REPO / "blobs").glob("*.pensieve.*"))

# Each waits for the other's lock.
clear()
weights = Path(our_links["model-00001-of-00002.safetensors"]).name
lock = CACHE / ".locks/models--org--model" / f"{weights}.lock"
lock.parent.mkdir(parents=True)
with open(lock, "w") as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting = subprocess.Popen([PENSIEVE, "pull", "org/model"], stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert waiting.poll() is None
    assert not (REPO / "blobs" / weights).exists()
    threading.Timer(0.1, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()
    _, said = waiting.communicate(timeout=30)
assert waiting.returncode == 0, said
assert "another process is fetching it" in said, said

# Both at once leave what each alone does.
clear()
both = subprocess.Popen([PENSIEVE, "pull", "org/model"], stderr=subprocess.DEVNULL)
theirs = snapshot_download("org/model")
assert both.wait(timeout=60) == 0
assert contents(theirs) == our_contents and links(theirs) == our_links

# Removed here, it is gone there.
pensieve("rm", "--yes", "org/model")
assert not REPO.exists() and not scan_cache_dir().repos
print("huggingface_hub and pensieve read what the other wrote")
