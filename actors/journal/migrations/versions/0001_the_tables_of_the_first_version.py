"""The tables of the first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=True),
        sa.Column("tag_id", sa.String(), nullable=True),
        sa.Column("limit_id", sa.String(), nullable=True),
        sa.Column("profile_id", sa.String(), nullable=True),
        sa.Column("metric", sa.String(), nullable=True),
        sa.Column("fence_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("excursions", sa.Integer(), nullable=False),
        sa.Column("open_excursions", sa.Integer(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("extreme", sa.Float(), nullable=True),
        sa.Column("extreme_us", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("assigned_to", sa.String(), nullable=False),
        sa.Column("acknowledged_by", sa.String(), nullable=False),
        sa.Column("acknowledged_us", sa.BigInteger(), nullable=True),
        sa.Column("resolved_by", sa.String(), nullable=False),
        sa.Column("resolved_us", sa.BigInteger(), nullable=True),
        sa.Column("resolution", sa.String(), nullable=False),
        sa.Column("reopened", sa.Integer(), nullable=False),
        sa.Column("raised_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert")),
        sa.UniqueConstraint("key", "ordinal", name=op.f("uq_alert_key_ordinal")),
    )
    with op.batch_alter_table("alert", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alert_carrier_state_raised_us"), ["carrier", "state", "raised_us"], unique=False)
        batch_op.create_index(batch_op.f("ix_alert_raised_us_alert_id"), ["raised_us", "alert_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_alert_state_raised_us_alert_id"), ["state", "raised_us", "alert_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_alert_tag_id_state_raised_us"), ["tag_id", "state", "raised_us"], unique=False)

    op.create_table(
        "carrier_plan",
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("carrier", name=op.f("pk_carrier_plan")),
    )
    op.create_table(
        "commit_key",
        sa.Column("commit_key", sa.String(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("commit_key", name=op.f("pk_commit_key")),
    )
    with op.batch_alter_table("commit_key", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_commit_key_recorded_us"), ["recorded_us"], unique=False)

    op.create_table(
        "conflict",
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("sensed_us", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("reading_sequence", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "sequence", "ordinal", name=op.f("pk_conflict")),
    )
    with op.batch_alter_table("conflict", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_conflict_tag_id_sensed_us"), ["tag_id", "sensed_us"], unique=False)

    op.create_table(
        "custody",
        sa.Column("custody_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=True),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        sa.Column("retracted", sa.Boolean(), nullable=False),
        sa.Column("assigned_by", sa.String(), nullable=False),
        sa.Column("assigned_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_by", sa.String(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("custody_id", name=op.f("pk_custody")),
    )
    with op.batch_alter_table("custody", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_custody_carrier_from_us"), ["carrier", "from_us"], unique=False)
        batch_op.create_index(batch_op.f("ix_custody_tag_id_from_us"), ["tag_id", "from_us"], unique=False)

    op.create_table(
        "event",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=True),
        sa.Column("tag_id", sa.String(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_event")),
    )
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_event_carrier_number"), ["carrier", "number"], unique=False)
        batch_op.create_index(batch_op.f("ix_event_tag_id_number"), ["tag_id", "number"], unique=False)

    op.create_table(
        "event_counter",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_counter")),
    )
    op.create_table(
        "excursion",
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("custody_id", sa.BigInteger(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=True),
        sa.Column("lots", sa.JSON(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("profile_id", sa.String(), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("direction", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("triggered_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("violation_us", sa.BigInteger(), nullable=False),
        sa.Column("uncovered_us", sa.BigInteger(), nullable=False),
        sa.Column("extreme", sa.Float(), nullable=True),
        sa.Column("extreme_us", sa.BigInteger(), nullable=True),
        sa.Column("mean", sa.Float(), nullable=True),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.Column("found_late", sa.Boolean(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("alert_id", sa.String(), nullable=True),
        sa.Column("excursion_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("excursion_id", name=op.f("pk_excursion")),
    )
    with op.batch_alter_table("excursion", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_excursion_alert_id"), ["alert_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_excursion_carrier_started_us"), ["carrier", "started_us"], unique=False)
        batch_op.create_index(batch_op.f("ix_excursion_custody_id"), ["custody_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_excursion_state_started_us"), ["state", "started_us"], unique=False)
        batch_op.create_index(batch_op.f("ix_excursion_tag_id_started_us"), ["tag_id", "started_us"], unique=False)

    op.create_table(
        "excursion_revision",
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("custody_id", sa.BigInteger(), nullable=False),
        sa.Column("handling_unit_id", sa.String(), nullable=True),
        sa.Column("lots", sa.JSON(), nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("profile_id", sa.String(), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("direction", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("triggered_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("violation_us", sa.BigInteger(), nullable=False),
        sa.Column("uncovered_us", sa.BigInteger(), nullable=False),
        sa.Column("extreme", sa.Float(), nullable=True),
        sa.Column("extreme_us", sa.BigInteger(), nullable=True),
        sa.Column("mean", sa.Float(), nullable=True),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.Column("found_late", sa.Boolean(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("alert_id", sa.String(), nullable=True),
        sa.Column("excursion_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("excursion_id", "revision", name=op.f("pk_excursion_revision")),
    )
    op.create_table(
        "exposure",
        sa.Column("custody_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("limit_id", sa.String(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("violation_us", sa.BigInteger(), nullable=False),
        sa.Column("covered_us", sa.BigInteger(), nullable=False),
        sa.Column("uncovered_us", sa.BigInteger(), nullable=False),
        sa.Column("extreme", sa.Float(), nullable=True),
        sa.Column("extreme_us", sa.BigInteger(), nullable=True),
        sa.Column("readings", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("custody_id", "limit_id", name=op.f("pk_exposure")),
    )
    with op.batch_alter_table("exposure", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_exposure_carrier"), ["carrier"], unique=False)

    op.create_table(
        "geofence",
        sa.Column("fence_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("geometry", sa.JSON(), nullable=False),
        sa.Column("radius_m", sa.Float(), nullable=True),
        sa.Column("half_width_m", sa.Float(), nullable=True),
        sa.Column("confirm", sa.Integer(), nullable=False),
        sa.Column("dwell_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fence_id", name=op.f("pk_geofence")),
    )
    op.create_table(
        "handling_unit",
        sa.Column("handling_unit_id", sa.String(), nullable=False),
        sa.Column("sscc", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("handling_unit_id", name=op.f("pk_handling_unit")),
    )
    with op.batch_alter_table("handling_unit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_handling_unit_carrier"), ["carrier"], unique=False)
        batch_op.create_index(batch_op.f("ix_handling_unit_sscc"), ["sscc"], unique=False)

    op.create_table(
        "item",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("gtin", sa.String(), nullable=True),
        sa.Column("sku", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("profile_id", sa.String(), nullable=True),
        sa.Column("stability_budget", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_item")),
        sa.UniqueConstraint("gtin", name=op.f("uq_item_gtin")),
    )
    with op.batch_alter_table("item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_item_sku"), ["sku"], unique=False)

    op.create_table(
        "journal_batch",
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("min_sensed_us", sa.BigInteger(), nullable=True),
        sa.Column("max_sensed_us", sa.BigInteger(), nullable=True),
        sa.Column("readings", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "sequence", name=op.f("pk_journal_batch")),
    )
    with op.batch_alter_table("journal_batch", schema=None) as batch_op:
        batch_op.create_index("ix_journal_batch_sensed", ["shard", "max_sensed_us", "min_sensed_us"], unique=False)

    op.create_table(
        "mailbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox")),
    )
    with op.batch_alter_table("mailbox", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mailbox_shard_id"), ["shard", "id"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_outbox_destination_state_id"), ["destination", "state", "id"], unique=False)

    op.create_table(
        "profile",
        sa.Column("profile_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("in_force_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("profile_id", "version", name=op.f("pk_profile")),
    )
    op.create_table(
        "request",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "request_id", name=op.f("pk_request")),
    )
    with op.batch_alter_table("request", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_request_recorded_us"), ["recorded_us"], unique=False)

    op.create_table(
        "setting",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_setting")),
    )
    op.create_table(
        "shard_owner",
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("journal_head", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_sequence", sa.BigInteger(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("acquired_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_shard_owner")),
    )
    op.create_table(
        "shipment",
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("profile_id", sa.String(), nullable=True),
        sa.Column("profile_version", sa.Integer(), nullable=True),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("planned_departure_us", sa.BigInteger(), nullable=True),
        sa.Column("planned_arrival_us", sa.BigInteger(), nullable=True),
        sa.Column("lateness_tolerance_us", sa.BigInteger(), nullable=False),
        sa.Column("departed_us", sa.BigInteger(), nullable=True),
        sa.Column("arrived_us", sa.BigInteger(), nullable=True),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("route", sa.JSON(), nullable=False),
        sa.Column("fences", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shipment_id", name=op.f("pk_shipment")),
    )
    with op.batch_alter_table("shipment", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shipment_created_us_shipment_id"), ["created_us", "shipment_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_shipment_reference"), ["reference"], unique=False)
        batch_op.create_index(batch_op.f("ix_shipment_state_created_us_shipment_id"), ["state", "created_us", "shipment_id"], unique=False)

    op.create_table(
        "snapshot",
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("made_us", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("shard", "sequence", "part", name=op.f("pk_snapshot")),
    )
    op.create_table(
        "tag",
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("local_index", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("usual_interval_us", sa.BigInteger(), nullable=True),
        sa.Column("quality", sa.JSON(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tag_id", name=op.f("pk_tag")),
        sa.UniqueConstraint("shard", "local_index", name=op.f("uq_tag_shard_local_index")),
    )
    op.create_table(
        "visit",
        sa.Column("visit_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.String(), nullable=False),
        sa.Column("carrier", sa.String(), nullable=False),
        sa.Column("custody_id", sa.BigInteger(), nullable=False),
        sa.Column("fence_id", sa.String(), nullable=True),
        sa.Column("entered_us", sa.BigInteger(), nullable=False),
        sa.Column("exited_us", sa.BigInteger(), nullable=True),
        sa.Column("latitude_deg", sa.Float(), nullable=True),
        sa.Column("longitude_deg", sa.Float(), nullable=True),
        sa.Column("distance_m", sa.Float(), nullable=True),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("visit_id", name=op.f("pk_visit")),
    )
    with op.batch_alter_table("visit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_visit_carrier_entered_us"), ["carrier", "entered_us"], unique=False)
        batch_op.create_index(batch_op.f("ix_visit_custody_id"), ["custody_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_visit_fence_id"), ["fence_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_visit_tag_id_entered_us"), ["tag_id", "entered_us"], unique=False)

    op.create_table(
        "warehouse",
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("gln", sa.String(), nullable=True),
        sa.Column("locode", sa.String(), nullable=True),
        sa.Column("latitude_deg", sa.Float(), nullable=True),
        sa.Column("longitude_deg", sa.Float(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("warehouse_id", name=op.f("pk_warehouse")),
    )
    op.create_table(
        "alert_history",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("excursion_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["alert_id"], ["alert.alert_id"], name=op.f("fk_alert_history_alert_id")),
        sa.PrimaryKeyConstraint("alert_id", "etag", name=op.f("pk_alert_history")),
    )
    op.create_table(
        "custody_revision",
        sa.Column("custody_id", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["custody_id"], ["custody.custody_id"], name=op.f("fk_custody_revision_custody_id")),
        sa.PrimaryKeyConstraint("custody_id", "etag", name=op.f("pk_custody_revision")),
    )
    op.create_table(
        "lot",
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("lot_number", sa.String(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["item.item_id"], name=op.f("fk_lot_item_id")),
        sa.PrimaryKeyConstraint("lot_id", name=op.f("pk_lot")),
        sa.UniqueConstraint("item_id", "lot_number", name=op.f("uq_lot_item_id_lot_number")),
    )
    op.create_table(
        "milestone",
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_by", sa.String(), nullable=False),
        sa.Column("stop_ordinal", sa.Integer(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["shipment_id"], ["shipment.shipment_id"], name=op.f("fk_milestone_shipment_id")),
        sa.PrimaryKeyConstraint("shipment_id", "ordinal", name=op.f("pk_milestone")),
    )
    op.create_table(
        "stop",
        sa.Column("shipment_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("stop_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("locode", sa.String(), nullable=True),
        sa.Column("gln", sa.String(), nullable=True),
        sa.Column("warehouse_id", sa.String(), nullable=True),
        sa.Column("fence_id", sa.String(), nullable=True),
        sa.Column("latitude_deg", sa.Float(), nullable=True),
        sa.Column("longitude_deg", sa.Float(), nullable=True),
        sa.Column("radius_m", sa.Float(), nullable=True),
        sa.Column("planned_arrival_us", sa.BigInteger(), nullable=True),
        sa.Column("planned_departure_us", sa.BigInteger(), nullable=True),
        sa.Column("arrived_us", sa.BigInteger(), nullable=True),
        sa.Column("departed_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["shipment_id"], ["shipment.shipment_id"], name=op.f("fk_stop_shipment_id")),
        sa.PrimaryKeyConstraint("shipment_id", "ordinal", name=op.f("pk_stop")),
    )
    op.create_table(
        "zone",
        sa.Column("warehouse_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("profile_id", sa.String(), nullable=True),
        sa.Column("profile_version", sa.Integer(), nullable=True),
        sa.Column("fences", sa.JSON(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["warehouse_id"], ["warehouse.warehouse_id"], name=op.f("fk_zone_warehouse_id")),
        sa.PrimaryKeyConstraint("warehouse_id", "zone_id", name=op.f("pk_zone")),
    )
    op.create_table(
        "handling_unit_lot",
        sa.Column("handling_unit_id", sa.String(), nullable=False),
        sa.Column("lot_id", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["handling_unit_id"], ["handling_unit.handling_unit_id"], name=op.f("fk_handling_unit_lot_handling_unit_id")
        ),
        sa.ForeignKeyConstraint(["lot_id"], ["lot.lot_id"], name=op.f("fk_handling_unit_lot_lot_id")),
        sa.PrimaryKeyConstraint("handling_unit_id", "lot_id", name=op.f("pk_handling_unit_lot")),
    )
    with op.batch_alter_table("handling_unit_lot", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_handling_unit_lot_lot_id"), ["lot_id"], unique=False)

    if op.get_bind().dialect.name == "postgresql":  # blobs are written as they are: compressing them costs more than it saves
        for table in ("journal_batch", "snapshot"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN blob SET STORAGE EXTERNAL")
    op.execute("INSERT INTO event_counter (id, number) VALUES (1, 0)")


def downgrade() -> None:
    """There is nothing before the first version."""
    raise NotImplementedError("there is no version before the first")
