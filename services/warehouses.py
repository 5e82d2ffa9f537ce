"""WarehouseService: warehouses, their zones, and the tags in them."""

from __future__ import annotations

from typing import Any

from actors.journal import queries_business as queries
from actors.journal.queries_business import zone_carrier
from actors.journal.tables import Warehouse, Zone
from actors.rules.errors import NotFound
from services import carriers, check, convert, exposure, records
from services.backend import Backend, Context
from services.carriers import command, given
from services.paging import Page
from waybill.v1 import warehouse_pb2, warehouse_pb2_grpc

CHANGEABLE = ("name", "gln", "locode", "location", "labels", "allow_negative_stock")
ZONE_CHANGEABLE = ("name", "profile_id", "profile_version", "geofences", "labels")


class Warehouses(warehouse_pb2_grpc.WarehouseServiceServicer):
    """See warehouse.proto."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def CreateWarehouse(
        self, request: warehouse_pb2.CreateWarehouseRequest, context: Context
    ) -> warehouse_pb2.CreateWarehouseResponse:
        """A new warehouse with its zones."""
        body = convert.warehouse(given(request, "warehouse"))
        answer = await self._command("warehouse.create", {"warehouse": body, "request_id": request.request_id}, body, context)
        return warehouse_pb2.CreateWarehouseResponse(warehouse=_answered(answer))

    async def GetWarehouse(self, request: warehouse_pb2.GetWarehouseRequest, context: Context) -> warehouse_pb2.GetWarehouseResponse:
        """One warehouse."""
        row, zones = await self._existing(request.warehouse_id)
        return warehouse_pb2.GetWarehouseResponse(warehouse=records.warehouse(row, zones))

    async def ListWarehouses(self, request: warehouse_pb2.ListWarehousesRequest, context: Context) -> warehouse_pb2.ListWarehousesResponse:
        """Warehouses by id."""
        page = Page(request, (str,))
        after: Any = page.after[0] if page.after else ""
        rows = await self._backend.read(queries.warehouses, after=after, limit=page.limit)
        shown, token = page.cut(rows, lambda row: (row[0].warehouse_id,))
        return warehouse_pb2.ListWarehousesResponse(warehouses=[records.warehouse(*row) for row in shown], next_page_token=token)

    async def UpdateWarehouse(
        self, request: warehouse_pb2.UpdateWarehouseRequest, context: Context
    ) -> warehouse_pb2.UpdateWarehouseResponse:
        """Some fields of a warehouse are replaced."""
        changes = given(request, "warehouse")
        body = convert.warehouse(changes)
        mask = check.masked(changes, request.update_mask, CHANGEABLE)
        arguments = {"warehouse": body, "update_mask": mask, "request_id": request.request_id}
        answer = await self._command("warehouse.update", arguments, body, context)
        return warehouse_pb2.UpdateWarehouseResponse(warehouse=_answered(answer))

    async def CreateZone(self, request: warehouse_pb2.CreateZoneRequest, context: Context) -> warehouse_pb2.CreateZoneResponse:
        """A new zone."""
        body = convert.zone(given(request, "zone"))
        answer = await self._command("warehouse.create_zone", {"zone": body, "request_id": request.request_id}, body, context)
        return warehouse_pb2.CreateZoneResponse(zone=records.zone(Zone(**answer["zone"])))

    async def UpdateZone(self, request: warehouse_pb2.UpdateZoneRequest, context: Context) -> warehouse_pb2.UpdateZoneResponse:
        """Some fields of a zone are replaced."""
        changes = given(request, "zone")
        body = convert.zone(changes)
        named = check.masked(changes, request.update_mask, ZONE_CHANGEABLE)
        mask = list(dict.fromkeys("profile_id" if field == "profile_version" else field for field in named))
        if "profile_id" in mask and "profile_id" not in named:
            _, zones = await self._existing(body["warehouse_id"])
            body["profile_id"] = next((zone.profile_id or "" for zone in zones if zone.zone_id == body["zone_id"]), "")
        arguments = {
            "zone": body,
            "update_mask": mask,
            "effective_us": check.time_us(request, "effective_time"),
            "request_id": request.request_id,
        }
        answer = await self._command("warehouse.update_zone", arguments, body, context)
        return warehouse_pb2.UpdateZoneResponse(zone=records.zone(Zone(**answer["zone"])))

    async def AssignZoneTag(self, request: warehouse_pb2.AssignZoneTagRequest, context: Context) -> warehouse_pb2.AssignZoneTagResponse:
        """A tag is put into a zone."""
        name = await self._zone(request.warehouse_id, request.zone_id)
        return warehouse_pb2.AssignZoneTagResponse(custody=await carriers.assign(self._backend, name, request, "", context))

    async def ReleaseZoneTag(self, request: warehouse_pb2.ReleaseZoneTagRequest, context: Context) -> warehouse_pb2.ReleaseZoneTagResponse:
        """A tag is taken out of a zone."""
        name = await self._zone(request.warehouse_id, request.zone_id)
        return warehouse_pb2.ReleaseZoneTagResponse(custody=await carriers.release(self._backend, name, request, context))

    async def GetZoneExposure(
        self, request: warehouse_pb2.GetZoneExposureRequest, context: Context
    ) -> warehouse_pb2.GetZoneExposureResponse:
        """A zone's exposure and verdict."""
        name = await self._zone(request.warehouse_id, request.zone_id)
        return warehouse_pb2.GetZoneExposureResponse(exposure=await exposure.of_carrier(self._backend, name, context))

    async def ListZoneExcursions(
        self, request: warehouse_pb2.ListZoneExcursionsRequest, context: Context
    ) -> warehouse_pb2.ListZoneExcursionsResponse:
        """A zone's excursions by start."""
        name = await self._zone(request.warehouse_id, request.zone_id)
        rows, token = await carriers.list_excursions(self._backend, name, request, context)
        return warehouse_pb2.ListZoneExcursionsResponse(excursions=rows, next_page_token=token)

    async def _command(self, name: str, arguments: dict[str, Any], body: dict[str, Any], context: Context) -> dict[str, Any]:
        return await command(self._backend, body["warehouse_id"], name, arguments, context)

    async def _existing(self, warehouse_id: str) -> tuple[Warehouse, list[Zone]]:
        check.text(warehouse_id, "warehouse_id", required=True)
        found = await self._backend.read(queries.warehouse, warehouse_id)
        if found is None:
            raise NotFound("no such warehouse", field="warehouse_id", value=warehouse_id)
        return found

    async def _zone(self, warehouse_id: str, zone_id: str) -> str:
        """The carrier's name of a zone that exists."""
        _, zones = await self._existing(warehouse_id)
        check.text(zone_id, "zone_id", required=True)
        if all(zone.zone_id != zone_id for zone in zones):
            raise NotFound("the warehouse has no such zone", field="zone_id", value=zone_id)
        return zone_carrier(warehouse_id, zone_id)


def _answered(answer: dict[str, Any]) -> warehouse_pb2.Warehouse:
    return records.warehouse(Warehouse(**answer["warehouse"]), [Zone(**zone) for zone in answer["zones"]])
