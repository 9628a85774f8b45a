"""Digests of arrays, tables, and models of other libraries."""

import copy
import datetime
import functools
import pickle
import zoneinfo

import attrs
import numpy
import pandas
import pydantic

from procession._plan.digest import digest


def test_an_array_is_its_type_shape_and_content():
    """However it lies in memory."""
    numbers = numpy.arange(12.0).reshape(3, 4)
    same = [numbers.copy(), numpy.asfortranarray(numbers), numpy.vstack([numbers, numbers])[:3]]
    assert {digest(array) for array in same} == {digest(numbers)}
    others = [numbers.T, numbers.reshape(4, 3), numbers.astype("f4"), numbers + 1, numbers.tolist()]
    others += [numpy.ma.array(numbers, mask=numbers > 3), numpy.ma.array(numbers, mask=numbers > 4)]
    others += [numpy.array(["2026-11-24"], "M8[D]"), numpy.array(["2026-11-24"], "M8[s]")]
    others += [
        numpy.array([1, "a", [2]], object),
        numpy.array([1, "a", [3]], object),
        numpy.float64(1),
        numpy.float32(1),
    ]
    others += [numpy.zeros(2, [("a", "i4"), ("b", "i4")]), numpy.zeros(2, [("a", "i4"), ("c", "i4")]), numpy.zeros(0)]
    assert len({digest(value) for value in [numbers, *others]}) == len(others) + 1


def test_a_scalar_of_numpy_is_its_type_and_value():
    """Whatever module its version keeps them in."""
    numbers = [numpy.int64(1), numpy.float64(1), numpy.float32(1), numpy.bool_(True), numpy.str_("1"), 1, 1.0, True]
    numbers += [numpy.datetime64("2026-11-24"), numpy.datetime64("2026-11-24", "s"), numpy.timedelta64(1, "s")]
    numbers += [
        numpy.array([(1, "a")], [("n", "i8"), ("o", "O")])[0],
        numpy.array([(1, 2)], [("n", "i8"), ("m", "i8")])[0],
    ]
    assert len({digest(value) for value in numbers}) == len(numbers)
    assert [digest(copy.deepcopy(value)) for value in numbers] == [digest(value) for value in numbers]
    assert digest(numpy.int64(1)).hex() == "18bfd1471ca0116a8d255fae7425c09f"
    assert digest(numpy.ma.array([1.0, 2.0], mask=[0, 1])).hex() == "adc63093197adfeede90674948407fdf"
    assert digest(numpy.zeros(2, [("a", "i4"), ("b", "S3")])).hex() == "11082ebfc6631cb49dae5205f6fb3d7c"


def tables():
    """A frame of columns of many kinds."""
    times = pandas.date_range("2026-01-01", periods=3, tz="Europe/Rome")
    return pandas.DataFrame(
        {
            "numbers": [1, 2, 3],
            "halves": [0.5, None, 1.5],
            "text": ["a", None, "c"],
            "times": times,
            "spans": pandas.to_timedelta([1, 2, 3], "h"),
            "months": pandas.period_range("2026-01", periods=3, freq="M"),
            "kinds": pandas.Categorical(["x", "y", "x"]),
            "missing": pandas.array([1, None, 3], "Int64"),
            "whether": pandas.array([True, None, False], "boolean"),
            "objects": [{"a": 1}, [2], None],
            "ranges": pandas.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
            "few": pandas.arrays.SparseArray([0, 0, 1]),
        },
        index=pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["letter", "number"]),
    )


def test_a_table_is_its_content_whatever_was_looked_at():
    """Indexes cache what they were asked for, and frames keep columns in blocks; neither is part of them."""
    was = digest(tables())
    table = tables()
    repr(table), repr(table.index), table.index.is_unique, table.loc["a"], table["times"].dt.day
    assert digest(table) == digest(table.copy()) == digest(pickle.loads(pickle.dumps(table))) == was
    assert digest(pandas.concat([table[:1], table[1:]])) == digest(table[table["numbers"] > 0]) == was
    index = pandas.date_range("2026-01-01", periods=3)
    before = digest(index)
    repr(index), index.is_unique, index.get_loc("2026-01-02"), index.year
    assert digest(index) == digest(pandas.DatetimeIndex(list(index))) == before


def test_what_is_another_table_has_another_digest():
    """A cell, a type, a name, an order, an index, an attribute."""
    table, others = tables(), []
    for column in table.columns:
        other = tables()
        other[column] = other[column].iloc[[2, 0, 1]].array
        others.append(other)
    for column, kind in [("numbers", "int32"), ("numbers", "Int64"), ("kinds", "object"), ("text", "category")]:
        others.append(table.astype({column: kind}))
    others += [table.rename(columns={"few": "fewer"}), table[reversed(table.columns)], table[:2], table.reset_index()]
    others += [table.set_index("times"), table.set_index("numbers"), table["numbers"], table["halves"], table.index]
    others += [table.columns, table["numbers"].array, pandas.RangeIndex(3), pandas.Index([0, 1, 2], name="n")]
    others += [pandas.Timestamp("2026-01-01"), pandas.Timestamp("2026-01-01", tz="UTC"), pandas.Timedelta(1, "h")]
    others += [pandas.Timestamp("2026-01-02"), pandas.Period("2026-01"), pandas.NaT, pandas.NA, tables().attrs]
    marked = tables()
    marked.attrs["source"] = "a"
    others.append(marked)
    assert len({digest(value) for value in [table, *others]}) == len(others) + 1
    assert [digest(copy.deepcopy(value)) for value in others] == [digest(value) for value in others]


class Config(pydantic.BaseModel):
    url: str
    retries: int = 5
    _made: int = pydantic.PrivateAttr(default=1)

    @functools.cached_property
    def host(self):
        return self.url.upper()


class Loose(pydantic.BaseModel, extra="allow"):
    url: str


def test_models_that_are_equal_have_one_digest():
    """Which fields were set, and what was cached, is no part of a model of pydantic."""
    spelt = Config.model_validate_json(Config(url="a").model_dump_json())
    assert digest(Config(url="a")) == digest(spelt) == digest(Config(url="a", retries=5))
    assert spelt.host == "A"
    assert digest(spelt) == digest(Config(url="a"))
    private = Config(url="a")
    private._made = 2
    others = [
        Config(url="b"),
        Config(url="a", retries=6),
        private,
        Loose(url="a"),
        Loose(url="a", more=1),
        {"url": "a"},
    ]
    assert len({digest(value) for value in [spelt, *others]}) == len(others) + 1


@attrs.define
class Place:
    x: int
    note: str = attrs.field(default="", eq=False)


@attrs.frozen(slots=False, cache_hash=True)
class Spot:
    x: int

    @functools.cached_property
    def double(self):
        return self.x * 2


@attrs.define
class Own:
    x: int
    y: int = 0

    def __getstate__(self):
        return {"x": self.x}

    def __setstate__(self, state):
        self.x = state["x"]


def test_objects_of_attrs_are_what_they_compare():
    """A cached hash or property, and what is not compared, does not count; what a class says itself does."""
    assert digest(Place(1, "a")) == digest(Place(1, "b")) != digest(Place(2, "a"))
    spot = Spot(1)
    hash(spot), spot.double
    assert digest(spot) == digest(Spot(1)) != digest(Spot(2))
    assert digest(Own(1, 2)) == digest(Own(1, 3)) != digest(Own(2, 2))


def test_a_time_zone_is_its_key():
    """In every version of Python; one that was read from a file has none, and is refused."""
    zones = [zoneinfo.ZoneInfo("Europe/Rome"), zoneinfo.ZoneInfo("Europe/Paris"), datetime.UTC]
    assert len({digest(zone) for zone in zones}) == len(zones)
    assert digest(zoneinfo.ZoneInfo.no_cache("Europe/Rome")) == digest(zones[0])
    assert digest(datetime.datetime(2026, 1, 5, tzinfo=zones[0])).hex() == "ea7f10846c29c4b20f36d8123550b867"


def test_digests_are_the_same_in_every_version_of_a_library():
    """A run that is resumed after an upgrade finds its tasks again. NumPy 1.26 gives these, too."""
    rome = datetime.datetime(2026, 1, 5, tzinfo=zoneinfo.ZoneInfo("Europe/Rome"))
    assert {
        "an integer": digest(numpy.int64(7)).hex(),
        "numbers": digest(numpy.arange(6.0).reshape(2, 3)).hex(),
        "a date": digest(numpy.datetime64("2026-11-24")).hex(),
        "a time zone": digest(rome).hex(),
    } == {
        "an integer": "60427056c97b762d64607eaecd379f6e",
        "numbers": "189ad4e521730292b35496fce0424407",
        "a date": "33d94539834ab4b607c11c8d9b318ec2",
        "a time zone": "ea7f10846c29c4b20f36d8123550b867",
    }
