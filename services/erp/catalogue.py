"""The ERP's items and places in Waybill: made where they are not there, mapped, and renamed when the ERP renames them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from services.erp.connector import ErpItem, ErpPlace
from services.erp.waybill import ApiRefused, Mappings, Waybill
from waybill.v1 import inventory_pb2, item_pb2, warehouse_pb2

log = logging.getLogger(__name__)


class Catalogue:
    """What an ERP tells of items and places. What was told before and is the same costs nothing."""

    def __init__(self, waybill: Waybill, system: str, mappings: Mappings) -> None:
        self._waybill, self._system, self._mappings = waybill, system, mappings
        self._seen_items: dict[str, ErpItem] = {}
        self._seen_places: dict[str, ErpPlace] = {}

    def take_places(self, places: Sequence[ErpPlace]) -> int:
        """Warehouses and zones, warehouses first; how many are new. Raises ApiRefused."""
        new = 0
        for place in places:
            if self._seen_places.get(place.external_id) == place:
                continue
            if self._mappings.zone_of(place.external_id) is None:
                made = self._make_place(place)
                if made is None:
                    continue  # its warehouse means nothing here
                self._mappings.put([_location(self._system, place.external_id, *made)])
                new += 1
            self._seen_places[place.external_id] = place
        return new

    def _make_place(self, place: ErpPlace) -> tuple[str, str] | None:
        """A warehouse or zone of ours for a place of the ERP, by its code; by its id where the code means another place already."""
        plain = f"{self._system}-{place.external_id}"
        own_id = _id(place.code, plain)
        if not place.warehouse_id:
            own_id = own_id if self._mappings.external_place(own_id, "") is None else plain
            warehouse = warehouse_pb2.Warehouse(warehouse_id=own_id, name=place.name)
            request = warehouse_pb2.CreateWarehouseRequest(warehouse=warehouse, request_id=self._request("warehouse", place.external_id))
            self._create(self._waybill.warehouses.CreateWarehouse, request)
            return own_id, ""
        above = self._mappings.zone_of(place.warehouse_id)
        if above is None:
            return None
        own_id = own_id if self._mappings.external_place(above[0], own_id) is None else plain
        zone = warehouse_pb2.Zone(warehouse_id=above[0], zone_id=own_id, name=place.name)
        self._create(
            self._waybill.warehouses.CreateZone,
            warehouse_pb2.CreateZoneRequest(zone=zone, request_id=self._request("zone", place.external_id)),
        )
        return above[0], own_id

    def take_items(self, items: Sequence[ErpItem]) -> int:
        """Items; how many are new or changed. Raises ApiRefused."""
        changed = [item for item in items if self._seen_items.get(item.external_id) != item]
        new = [item for item in changed if self._mappings.item_of(item.external_id) is None]
        requests = [self._wanted(item) for item in new]
        taken: set[str] = set()
        mapped = []
        answers = self._waybill.together(self._waybill.items.CreateItem, requests)
        for item, request, answer in zip(new, requests, answers, strict=True):
            item_id = self._there(request.item, taken) if isinstance(answer, ApiRefused) else answer.item.item_id
            if item_id is None:
                item_id = self._plain_item(item, answer)
            taken.add(item_id)
            mapped.append(_item(self._system, item.external_id, item_id))
        self._mappings.put(mapped)
        made = {item.external_id for item in new}
        known = [
            (item, item_id) for item in changed if item.external_id not in made and (item_id := self._mappings.item_of(item.external_id))
        ]
        here = self._waybill.together(self._waybill.items.GetItem, [item_pb2.GetItemRequest(item_id=item_id) for _, item_id in known])
        for (item, _), answer in zip(known, here, strict=True):
            if not isinstance(answer, ApiRefused):
                self._update_item(item, answer.item)
            elif answer.reason != "NOT_FOUND":
                raise answer
        self._seen_items |= {item.external_id: item for item in changed}
        return len(changed)

    def _wanted(self, item: ErpItem) -> item_pb2.CreateItemRequest:
        own_id = _id(item.code, f"{self._system}-{item.external_id}")
        made = item_pb2.Item(item_id=own_id, gtin=item.gtin, sku=item.code, name=item.name, unit=item.unit)
        return item_pb2.CreateItemRequest(item=made, request_id=self._request("item", item.external_id))

    def _there(self, item: item_pb2.Item, taken: set[str]) -> str | None:
        """The item of ours that an item of the ERP's means: the one of its GTIN, or of its id; None where there is none, or it means
        another item there already."""
        found = []
        if item.gtin:
            request = item_pb2.ListItemsRequest(gtin=item.gtin)
            answer = self._waybill.found(self._waybill.items.ListItems, request, also="INVALID_ARGUMENT")
            found += [one.item_id for one in answer.items] if answer is not None else []
        if self._waybill.found(self._waybill.items.GetItem, item_pb2.GetItemRequest(item_id=item.item_id), also="INVALID_ARGUMENT"):
            found.append(item.item_id)
        return next((one for one in found if one not in taken and self._mappings.external_item(one) is None), None)

    def _plain_item(self, item: ErpItem, refused: Exception) -> str:
        """An item by the ERP's id alone: what is wrong with its code, GTIN or unit there is no reason not to know its stock."""
        log.warning("item %s (%s) is taken by its id alone: %s", item.external_id, item.code, refused)
        made = item_pb2.Item(item_id=f"{self._system}-{item.external_id}", name=item.name[:1024])
        request = item_pb2.CreateItemRequest(item=made, request_id=self._request("plain-item", item.external_id))
        return self._waybill.call(self._waybill.items.CreateItem, request).item.item_id

    def _update_item(self, item: ErpItem, here: item_pb2.Item) -> None:
        """The ERP's name wins; what else an item has here is Waybill's."""
        if here.name == item.name:
            return
        request = item_pb2.UpdateItemRequest(item=item_pb2.Item(item_id=here.item_id, name=item.name, etag=here.etag))
        request.update_mask.paths.append("name")
        self._waybill.call(self._waybill.items.UpdateItem, request)

    def _create(self, method: Any, request: Any) -> None:
        try:
            self._waybill.call(method, request)
        except ApiRefused as refused:
            if refused.reason not in ("ALREADY_EXISTS", "FAILED_PRECONDITION"):
                raise

    def _request(self, what: str, external_id: str) -> str:
        return f"{self._system}/{what}/{external_id}"[:56]


def _location(system: str, external_id: str, warehouse_id: str, zone_id: str) -> inventory_pb2.Mapping:
    kind = inventory_pb2.MAPPING_KIND_LOCATION
    return inventory_pb2.Mapping(system=system, kind=kind, external_id=external_id, warehouse_id=warehouse_id, zone_id=zone_id)


def _item(system: str, external_id: str, item_id: str) -> inventory_pb2.Mapping:
    return inventory_pb2.Mapping(system=system, kind=inventory_pb2.MAPPING_KIND_ITEM, external_id=external_id, item_id=item_id)


def _id(code: str, otherwise: str) -> str:
    """An ERP's code as an id of ours, or another one where it cannot be one."""
    plain = code.strip().replace("/", "-")
    return plain if 0 < len(plain) <= 64 and plain.isprintable() else otherwise
