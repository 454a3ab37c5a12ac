"""Ids have the API's form, and what belongs together shares its first 16 digits."""

from __future__ import annotations

import os
import re

from antiphon.protocol.ids import PREFIXES, chain_key, in_blocks, new_call_id, new_id


def test_an_id_is_the_prefix_and_50_hex_digits_with_the_time_inside():
    id = new_id("resp", now=0x6994B3E1, random=os.urandom)

    assert re.fullmatch(r"resp_[0-9a-f]{16}006994b3e1[0-9a-f]{24}", id)


def test_ids_of_a_chain_share_its_key_and_nothing_else():
    first = new_id("resp", now=1, random=os.urandom)
    second = new_id("msg", now=1, random=os.urandom, chain=first)

    assert chain_key(second) == chain_key(first) == first[5:21]
    assert second[-24:] != first[-24:]


def test_an_id_of_another_form_has_no_key():
    assert chain_key("resp_123") is None
    assert new_id("msg", now=1, random=os.urandom, chain="resp_123").startswith("msg_")


def test_a_call_id_is_24_letters_and_digits():
    assert re.fullmatch(r"call_[0-9a-zA-Z]{24}", new_call_id(os.urandom))


def test_no_two_item_types_share_a_prefix():
    assert len(set(PREFIXES.values())) == len(PREFIXES)


def test_randomness_drawn_in_blocks_is_the_same_and_none_of_it_comes_twice():
    drawn = []

    def random(count):
        drawn.append(count)
        return bytes(range(sum(drawn[:-1]), sum(drawn)))

    draw = in_blocks(random, block_bytes=8)

    assert [draw(3), draw(5), draw(20)] == [bytes(range(3)), bytes(range(3, 8)), bytes(range(8, 28))]
    assert drawn == [8, 20]
