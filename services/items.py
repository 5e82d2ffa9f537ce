"""ItemService: the products that lots are quantities of."""

from __future__ import annotations

from typing import Any

from actors.journal import queries_business as queries
from actors.journal.tables import Item
from actors.rules import identifiers
from actors.rules.errors import NotFound
from services import check, convert, records
from services.backend import Backend, Context
from services.carriers import command, given
from services.paging import Page
from waybill.v1 import item_pb2, item_pb2_grpc

CHANGEABLE = ("gtin", "sku", "name", "unit", "profile_id", "stability_budget", "labels", "units")


class Items(item_pb2_grpc.ItemServiceServicer):
    """See item.proto."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def CreateItem(self, request: item_pb2.CreateItemRequest, context: Context) -> item_pb2.CreateItemResponse:
        """A new item."""
        body = convert.item(given(request, "item"))
        arguments = {"item": body, "request_id": request.request_id}
        answer = await command(self._backend, body["item_id"], "item.create", arguments, context)
        return item_pb2.CreateItemResponse(item=records.item(Item(**answer["item"])))

    async def GetItem(self, request: item_pb2.GetItemRequest, context: Context) -> item_pb2.GetItemResponse:
        """One item."""
        check.text(request.item_id, "item_id", required=True)
        row = await self._backend.read(queries.item, request.item_id)
        if row is None:
            raise NotFound("no such item", field="item_id", value=request.item_id)
        return item_pb2.GetItemResponse(item=records.item(row))

    async def ListItems(self, request: item_pb2.ListItemsRequest, context: Context) -> item_pb2.ListItemsResponse:
        """Items by id."""
        page = Page(request, (str,))
        gtin = identifiers.gtin(request.gtin).zfill(14) if request.gtin else ""
        after: Any = page.after[0] if page.after else ""
        sku = check.text(request.sku, "sku")
        rows = await self._backend.read(queries.items, after=after, limit=page.limit, gtin=gtin, sku=sku)
        shown, token = page.cut(rows, lambda row: (row.item_id,))
        return item_pb2.ListItemsResponse(items=[records.item(row) for row in shown], next_page_token=token)

    async def UpdateItem(self, request: item_pb2.UpdateItemRequest, context: Context) -> item_pb2.UpdateItemResponse:
        """Some fields of an item are replaced."""
        changes = given(request, "item")
        body = convert.item(changes)
        mask = check.masked(changes, request.update_mask, CHANGEABLE)
        arguments = {"item": body, "update_mask": mask, "request_id": request.request_id}
        answer = await command(self._backend, body["item_id"], "item.update", arguments, context)
        return item_pb2.UpdateItemResponse(item=records.item(Item(**answer["item"])))
