"""The verdict, and the forms of a schema that refuse what it does not name."""

import pytest

from antiphon.spec.normal import Schemas
from antiphon.spec.validation import Schema

COMPONENTS = {
    "Base": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    "Point": {"type": "object", "properties": {"x": {"type": "integer"}}},
    "Whole": {
        "allOf": [
            {"$ref": "#/components/schemas/Base"},
            {"type": "object", "properties": {"at": {"$ref": "#/components/schemas/Point"}}},
        ]
    },
    "Circle": {"type": "object", "properties": {"kind": {"enum": ["circle"]}, "r": {}}, "required": ["kind"]},
    "Square": {"type": "object", "properties": {"kind": {"enum": ["square"]}, "a": {}}, "required": ["kind"]},
    "Shape": {"oneOf": [{"$ref": "#/components/schemas/Circle"}, {"$ref": "#/components/schemas/Square"}]},
    "Named": {"allOf": [{"$ref": "#/components/schemas/Shape"}, {"properties": {"name": {}}}]},
    "Tree": {
        "type": "object",
        "properties": {"leaf": {}, "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    },
    "Map": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Point"}},
    "Free": {"type": "object"},
    "Body": {
        "type": "object",
        "properties": {"input": {"$ref": "#/components/schemas/Tree"}, "other": {"$ref": "#/components/schemas/Tree"}},
    },
    "Not": {"type": "object", "properties": {"a": {}, "b": {}}, "not": {"required": ["a", "b"]}},
    "Extended": {"$ref": "#/components/schemas/Base", "properties": {"more": {}}},
}


class Kept:
    """Named schemas as the index keeps them."""

    def __init__(self, components):
        self._schemas = Schemas({"components": {"schemas": components}}, silent=True)
        self._schemas.finish()

    def schema(self, name):
        return self._schemas.done[name]

    def references(self, name):
        return self._schemas.references[name]


@pytest.fixture(scope="module")
def named():
    kept = Kept(COMPONENTS)
    return {name: Schema(kept.schema(name), kept) for name in COMPONENTS}


@pytest.mark.parametrize(
    ("name", "value", "plain", "closed", "strict"),
    [
        ("Base", {"id": "1"}, True, True, True),
        ("Base", {}, False, False, False),
        ("Base", {"id": "1", "more": 1}, True, False, False),
        ("Whole", {"id": "1", "at": {"x": 1}}, True, True, True),
        ("Whole", {"id": "1", "at": {"x": 1}, "more": 1}, True, False, False),
        ("Whole", {"id": "1", "at": {"x": 1, "y": 1}}, True, True, False),
        ("Whole", {"id": "1", "at": {"x": "1"}}, False, False, False),
        ("Shape", {"kind": "circle", "r": 1}, True, True, True),
        ("Shape", {"kind": "circle", "a": 1}, True, False, False),
        ("Named", {"kind": "square", "a": 1, "name": "x"}, True, True, True),
        ("Named", {"kind": "square", "r": 1, "name": "x"}, True, False, False),
        ("Tree", {"children": [{"children": [{"leaf": 1}]}]}, True, True, True),
        ("Tree", {"children": [{"children": [{"feal": 1}]}]}, True, True, False),
        ("Map", {"any": {"x": 1}}, True, True, True),
        ("Map", {"any": {"y": 1}}, True, True, False),
        ("Free", {"any": {"thing": 1}}, True, True, True),
        ("Not", {"a": 1}, True, True, True),
        ("Not", {"a": 1, "b": 1}, False, False, False),
        ("Extended", {"id": "1", "more": 1}, True, True, True),
        ("Extended", {"id": "1", "less": 1}, True, False, False),
        ("Base", "text", False, False, False),
    ],
)
def test_each_form_refuses_what_it_should(named, name, value, plain, closed, strict):
    schema = named[name]

    assert [schema.valid(value), schema.closed().valid(value), schema.strict().valid(value)] == [plain, closed, strict]


def test_below_a_lenient_property_nothing_is_refused(named):
    lenient = named["Body"].strict(lenient=("input",))
    odd = {"children": [{"odd": 1}]}

    assert lenient.valid({"input": odd})
    assert not lenient.valid({"other": odd})
    assert not lenient.valid({"odd": 1})
    assert not lenient.valid({"input": {"children": 5}})


def test_sealing_does_not_change_the_plain_schema(named):
    named["Whole"].strict().valid({})

    assert named["Whole"].valid({"id": "1", "more": 1})


def test_the_forms_of_a_schema_are_made_once(named):
    schema = named["Whole"]

    assert schema.closed() is schema.closed()
    assert schema.strict(["input"]) is schema.strict(("input",))
    assert schema.strict() is not schema.closed()


def test_a_value_that_is_valid_has_no_problems(named):
    assert named["Base"].problems({"id": "1"}) == []


def test_problems_are_told_with_the_place_of_the_value(named):
    assert [problem.param for problem in named["Base"].strict().problems({"more": 1}, at="items[3]")] == [
        "items[3].id",
        "items[3].more",
    ]


def test_the_values_of_a_caller_are_not_in_the_words_of_the_validator(named):
    (error,) = named["Point"].errors({"x": "secret"})

    assert "secret" not in error.message
