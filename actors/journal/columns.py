"""What the tables share: their base, 64-bit ids, JSON without NaN, exact quantities."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Integer, MetaData
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import declared_attr, registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel
from sqlmodel._compat import SQLModelConfig

QUANTITY_DECIMALS = 6
"""A quantity keeps this many decimals; the largest is about 9.2e12 of its unit."""

ROWID = BigInteger().with_variant(Integer, "sqlite")
"""A key that the database gives: SQLite numbers rows by itself only where the type is spelt INTEGER."""


class Quantity(TypeDecorator[Decimal]):
    """An exact decimal, stored as an integer of millionths, so that sums are exact on every database.

    Raises ValueError for a decimal that has more than six decimals or does not fit: rounding stock would lose it.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Decimal to millionths; refuses what would have to be rounded."""
        if value is None:
            return None
        scaled = Decimal(value).scaleb(QUANTITY_DECIMALS)
        if scaled != scaled.to_integral_value() or abs(scaled) >= 2**63:
            raise ValueError(f"quantity {value} needs more than {QUANTITY_DECIMALS} decimals or is too large")
        return int(scaled)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Millionths to decimal; also right for SUM over the column."""
        return None if value is None else Decimal(int(value)).scaleb(-QUANTITY_DECIMALS)


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def dumps(value: Any) -> str:
    """JSON as the database keeps it: compact, and NaN refused (it is no JSON; an absent number is null)."""
    return _ENCODER.encode(value)


NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
_registry = registry(metadata=MetaData(naming_convention=NAMES))


def row_id(shard: int, counter: int) -> int:
    """A 64-bit id that no other shard makes: 12 bits shard, 40 bits counter (exact in a double, too)."""
    if not (0 <= shard < 1 << 12 and 0 <= counter < 1 << 40):
        raise ValueError(f"no id for shard {shard}, counter {counter}")
    return shard << 40 | counter


class Row(SQLModel, registry=_registry):
    """Base of all tables: table names in snake case, one metadata with named constraints.

    Tables do not validate, so their validators are not built: it would cost every process a fifth of a second when it starts.
    """

    model_config = SQLModelConfig(defer_build=True)

    @declared_attr.directive
    def __tablename__(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


metadata = Row.metadata
