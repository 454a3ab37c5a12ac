"""What was sealed comes back as it was, to the tenant that got it, and to nobody else."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import BrokenSeal, StoreError
from antiphon.seals import Seals, kept_secret

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
