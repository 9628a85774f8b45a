"""Rules that take values of other libraries apart by their content, without caches and the layout in memory.

The state that these libraries hand to pickle has caches, chunks, offsets, or names that change with the version. None
of the libraries is imported here: a rule is looked up only if its library has been loaded.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final, cast

_ARROW_NUMBERS: Final = re.compile("u?int[0-9]+|float|double")


def _dtype(dtype: Any) -> list[Any]:
    return [dtype.descr if dtype.names else dtype.str]


def _scalar(value: Any) -> list[Any]:
    content = [value[name] for name in value.dtype.names] if value.dtype.names else value.tobytes()
    return [value.dtype, value.item() if value.dtype.hasobject else content]


def array_content(array: Any) -> list[Any]:
    """Return the parts of a NumPy array: its type, its shape, and its elements or their hash."""
    dtype = array.dtype
    if dtype.hasobject:
        content = array.ravel().tolist()
    else:
        # Hashed here, without a copy where possible: NumPy gives no buffer for times (kinds m and M).
        lent = array.flags.c_contiguous and dtype.kind not in "mM"
        content = blake2b(array if lent else array.tobytes()).digest()
    return [dtype if dtype.names else dtype.str, array.shape, content]


def _masked(array: Any) -> list[Any]:
    return [array.filled(), array.mask if any(array.mask.tobytes()) else None]


def _frame(frame: Any) -> list[Any]:
    columns = [_column(frame.iloc[:, place].array) for place in range(frame.shape[1])]
    return [frame.columns, frame.index, columns, dict(frame.attrs)]


def _series(series: Any) -> list[Any]:
    return [series.name, series.index, _column(series.array), dict(series.attrs)]


def _index(index: Any) -> list[Any]:
    names = list(index.names)
    if hasattr(index, "levels"):
        return [names, [index.get_level_values(place) for place in range(index.nlevels)]]
    # A range is described by three numbers, however long it is.
    return [names, range(index.start, index.stop, index.step) if hasattr(index, "step") else _column(index.array)]


def _column(column: Any) -> list[Any]:
    """Return the parts of a pandas array: its type, the places of missing values, and the other values."""
    name = str(column.dtype)
    if hasattr(column, "codes"):
        return [name, column.categories, column.codes, column.ordered]
    missing = column.isna()
    if hasattr(column.dtype, "numpy_dtype") and column.dtype.kind in "biuf":
        kind = column.dtype.numpy_dtype
        return [name, missing, column.to_numpy(dtype=kind, na_value=kind.type(0))]
    if hasattr(column, "asi8"):  # times and periods
        return [name, column.asi8]
    if column.dtype.kind in "biufc":
        return [name, column.to_numpy()]
    # Missing values become None, since pandas has several objects for them, and a list of numbers, text and None alone
    # is digested in one pass.
    objects = column.astype(object)
    return [name, missing, [None if gone else value for gone, value in zip(missing, objects, strict=True)]]


def _timestamp(timestamp: Any) -> list[Any]:
    return [timestamp.asm8, None if timestamp.tz is None else str(timestamp.tz), timestamp.fold]


def _polars_frame(frame: Any) -> list[Any]:
    return [frame.columns, list(frame.get_columns())]


def _polars_series(series: Any) -> list[Any]:
    name, missing = str(series.dtype), series.is_null()
    if (series.dtype.is_numeric() and not series.dtype.is_decimal()) or series.dtype.is_temporal():
        return [series.name, name, missing.to_numpy(), series.drop_nulls().to_physical().to_numpy()]
    return [series.name, name, series.to_list()]


def _arrow_table(table: Any) -> list[Any]:
    return [table.schema, list(table.columns)]


def _arrow_schema(schema: Any) -> list[Any]:
    # Without its metadata, which name the version of the library that wrote it.
    return [(field.name, str(field.type), field.nullable) for field in schema]


def _arrow_array(array: Any) -> list[Any]:
    name = str(array.type)
    if _ARROW_NUMBERS.fullmatch(name):
        numbers = array.drop_null().to_numpy(zero_copy_only=False)
        return [name, array.is_null().to_numpy(zero_copy_only=False), numbers]
    return [name, array.to_pylist()]


def _arrow_chunks(chunks: Any) -> list[Any]:
    return [chunks.combine_chunks()]


def _model(model: Any) -> list[Any]:
    """Return the parts of a pydantic model that its `==` compares: not which of the fields were set explicitly."""
    kind = cast("Any", type(model))
    fields = getattr(kind, "model_fields", None) or getattr(kind, "__fields__", {})
    held = cast("dict[str, Any]", model.__dict__)
    extra, private = (getattr(model, name, None) for name in ("__pydantic_extra__", "__pydantic_private__"))
    attributes = {name: value for name, value in held.items() if name in fields}
    return [kind, attributes, extra or {}, private or {}]


FAMILIES: Final[dict[str, Callable[[Any], Iterable[Any]]]] = {
    "numpy.ma:MaskedArray": _masked,
    "numpy:generic": _scalar,
    "numpy:ufunc": lambda function: [function.__name__],
    "numpy:dtype": _dtype,
    "pandas:DataFrame": _frame,
    "pandas:Series": _series,
    "pandas:Index": _index,
    "pandas:Timestamp": _timestamp,
    "pandas:Timedelta": lambda value: [value.asm8],
    "pandas:Period": lambda value: [value.ordinal, value.freqstr],
    "pandas.api.extensions:ExtensionArray": _column,
    "polars:DataFrame": _polars_frame,
    "polars:Series": _polars_series,
    "pyarrow:Table": _arrow_table,
    "pyarrow:RecordBatch": _arrow_table,
    "pyarrow:ChunkedArray": _arrow_chunks,
    "pyarrow:Array": _arrow_array,
    "pyarrow:Scalar": lambda value: [str(value.type), value.as_py()],
    "pyarrow:Schema": _arrow_schema,
    "pyarrow:DataType": lambda value: [str(value)],
    "pydantic:BaseModel": _model,
    "zoneinfo:ZoneInfo": lambda zone: [zone.key],
}
"""The rules, by the class whose instances and whose subclasses' instances they take apart."""
