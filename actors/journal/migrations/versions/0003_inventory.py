"""Inventory: ledgers, stock, holds, other systems' books; and the outbox in the order of its destinations.

The outbox of 0001 was never written to: it is made anew.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "book_line",
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("system", "warehouse_id", "zone_id", "lot_id", "status", name=op.f("pk_book_line")),
    )
    op.create_table(
        "book_sync",
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("sync_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("as_of_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("system", "warehouse_id", name=op.f("pk_book_sync")),
    )
    op.create_table(
        "hold",
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("lot_number", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("excursions", sa.JSON(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("placed_us", sa.BigInteger(), nullable=False),
        sa.Column("placed_by", sa.String(), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("decision_reason", sa.String(), nullable=False),
        sa.Column("reopened", sa.Integer(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_hold")),
        sa.UniqueConstraint("lot_id", "ordinal", name=op.f("uq_hold_lot_id_ordinal")),
    )
    op.create_index(op.f("ix_hold_placed_us_hold_id"), "hold", ["placed_us", "hold_id"], unique=False)
    op.create_index(op.f("ix_hold_state_placed_us_hold_id"), "hold", ["state", "placed_us", "hold_id"], unique=False)
    op.create_table(
        "ledger",
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("warehouse_id", name=op.f("pk_ledger")),
    )
    op.create_table(
        "mapping",
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("external_id", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("system", "kind", "external_id", name=op.f("pk_mapping")),
        sa.UniqueConstraint(
            "system", "kind", "item_id", "warehouse_id", "zone_id", name=op.f("uq_mapping_system_kind_item_id_warehouse_id_zone_id")
        ),
    )
    op.create_table(
        "movement",
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("shipment_id", sa.String(), nullable=True),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("warehouse_id", "number", name=op.f("pk_movement")),
        sa.UniqueConstraint("warehouse_id", "key", name=op.f("uq_movement_warehouse_id_key")),
    )
    op.create_index(op.f("ix_movement_shipment_id_number"), "movement", ["shipment_id", "number"], unique=False)
    op.create_index(op.f("ix_movement_warehouse_id_lot_id_number"), "movement", ["warehouse_id", "lot_id", "number"], unique=False)
    op.create_table(
        "outbox_destination",
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("alert_above", sa.Integer(), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("undelivered", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_outbox_destination")),
    )
    op.create_table(
        "serial",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=False),
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "serial", name=op.f("pk_serial")),
    )
    op.create_table(
        "stock",
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=False),
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("left_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("warehouse_id", "zone_id", "lot_id", "handling_unit_id", "shipment_id", "status", name=op.f("pk_stock")),
    )
    op.create_index(op.f("ix_stock_lot_id"), "stock", ["lot_id"], unique=False)
    op.create_index(op.f("ix_stock_shipment_id"), "stock", ["shipment_id"], unique=False)
    op.create_index(op.f("ix_stock_warehouse_id_item_id"), "stock", ["warehouse_id", "item_id"], unique=False)
    op.create_table(
        "stock_leg",
        sa.Column("ledger", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=False),
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ledger", "number", "ordinal", name=op.f("pk_stock_leg")),
    )
    op.create_index(op.f("ix_stock_leg_lot_id_at_us"), "stock_leg", ["lot_id", "at_us"], unique=False)
    op.create_index(op.f("ix_stock_leg_warehouse_id_item_id_at_us"), "stock_leg", ["warehouse_id", "item_id", "at_us"], unique=False)
    op.create_table(
        "hold_history",
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["hold_id"], ["hold.hold_id"], name=op.f("fk_hold_history_hold_id")),
        sa.PrimaryKeyConstraint("hold_id", "etag", name=op.f("pk_hold_history")),
    )
    op.create_table(
        "hold_of_excursion",
        sa.Column("excursion_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["hold_id"], ["hold.hold_id"], name=op.f("fk_hold_of_excursion_hold_id")),
        sa.PrimaryKeyConstraint("excursion_id", "hold_id", name=op.f("pk_hold_of_excursion")),
    )
    op.create_index(op.f("ix_hold_of_excursion_hold_id"), "hold_of_excursion", ["hold_id"], unique=False)

    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("delivered_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("destination", "sequence", name=op.f("uq_outbox_destination_sequence")),
        sa.UniqueConstraint("destination", "key", name=op.f("uq_outbox_destination_key")),
    )
    op.create_index(op.f("ix_outbox_destination_state_sequence"), "outbox", ["destination", "state", "sequence"], unique=False)
    # Which database this is: a cursor of another one's event numbers is recognised by it.
    setting = sa.table("setting", sa.column("name", sa.String), sa.column("value", sa.String))
    op.bulk_insert(setting, [{"name": "feed", "value": uuid.uuid4().hex}])


def downgrade() -> None:
    """A ledger would be lost: there is no way back."""
    raise NotImplementedError("the version before has no ledger")
