"""What was sealed comes back as it was, to the tenant that got it, and to nobody else."""

import resource
import signal
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import BrokenSeal, StoreError
from antiphon.seals import Seals, kept_secret
from antiphon.store.whole_file import whole_file

OLD, NEW = "an old secret of enough characters", "a new secret of enough characters."


@given(st.binary(max_size=2000), st.text(max_size=20))
def test_what_was_sealed_is_opened_again(content, tenant):
    seals = Seals([NEW])
    assert seals.of(tenant).open("reasoning", seals.of(tenant).seal("reasoning", content)) == content


def test_the_same_content_is_never_sealed_into_the_same_text():
    seals = Seals([NEW])
    assert seals.of("a").seal("reasoning", b"x") != seals.of("a").seal("reasoning", b"x")


def test_a_sealed_text_does_not_hold_its_content():
    assert "c2VjcmV0" not in Seals([NEW]).of("a").seal("reasoning", b"secret")


@pytest.mark.parametrize(("tenant", "kind"), [("b", "reasoning"), ("a", "compaction"), ("areasoning", "")])
def test_another_tenant_or_another_role_cannot_open_it(tenant, kind):
    seals = Seals([NEW])
    with pytest.raises(BrokenSeal):
        seals.of(tenant).open(kind, seals.of("a").seal("reasoning", b"x"))


def test_an_older_key_still_opens_and_a_removed_one_does_not():
    sealed = Seals([OLD]).of("a").seal("reasoning", b"x")
    assert Seals([NEW, OLD]).of("a").open("reasoning", sealed) == b"x"
    with pytest.raises(BrokenSeal):
        Seals([NEW]).of("a").open("reasoning", sealed)


@given(place=st.integers(0, 60), other=st.integers(1, 63))
def test_any_change_breaks_it(place, other):
    seals, letters = Seals([NEW]), string.ascii_letters + string.digits + "-_"
    sealed = seals.of("a").seal("reasoning", b"twenty bytes of text")
    changed = letters[(letters.find(sealed[place]) + other) % 64]
    with pytest.raises(BrokenSeal):
        seals.of("a").open("reasoning", sealed[:place] + changed + sealed[place + 1 :])


@given(st.text(max_size=200))
def test_what_was_never_sealed_is_refused(text):
    with pytest.raises(BrokenSeal):
        Seals([NEW]).of("a").open("reasoning", text)


def test_a_kept_secret_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "antiphon.db.key"
    secret = kept_secret(str(path))
    assert len(secret) == 64
    assert kept_secret(str(path)) == secret
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_holds_no_secret_is_not_written_over(tmp_path):
    path = tmp_path / "antiphon.db.key"
    path.write_text("short")
    with pytest.raises(StoreError, match="does not hold a key"):
        kept_secret(str(path))
    assert path.read_text() == "short"


def test_a_key_that_the_disk_does_not_take_is_not_there_half(tmp_path):
    """No file may become longer than 10 bytes here: what a full disk does to a key of 64."""
    path = tmp_path / "antiphon.db.key"
    program = f"from antiphon.seals import kept_secret; kept_secret({str(path)!r})"

    def narrow():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))

    refused = subprocess.run(
        [sys.executable, "-B", "-c", program], preexec_fn=narrow, capture_output=True, text=True, check=False
    )

    assert refused.stderr.splitlines()[-1].startswith(f"antiphon.errors.StoreError: {path}: ")
    assert not list(tmp_path.iterdir())
    assert len(kept_secret(str(path))) == 64


def test_a_key_that_another_process_has_just_made_is_taken(tmp_path):
    path = tmp_path / "antiphon.db.key"

    def make():
        with whole_file(str(path), replaces=False) as new:
            (tmp_path / new).write_text(NEW)
            path.write_text(OLD)

    with pytest.raises(FileExistsError):
        make()
    assert kept_secret(str(path)) == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_key_is_told_and_left(tmp_path):
    path = tmp_path / "antiphon.db.key"
    path.touch()
    with pytest.raises(StoreError, match="does not hold a key; move it away"):
        kept_secret(str(path))
