"""What is booked in Tryton: each message as a document of its own, with the message's key in its reference.

A receipt is a supplier shipment, a despatch a customer shipment, everything else an internal shipment (to and from Lost and Found
for what was missing or found). A document is made as a draft, which changes no stock, and then led to `done` step by step.

Once, whatever dies when: before a document is made, its key is looked up. Where several drafts of one key came about (the
answer to a creation was lost, and the creation itself was late) one is chosen, done before not done, older before younger, and the
others are *cancelled first*: Tryton lets one change of a record happen after the other, so a step that is still under way for
one of them takes effect before its cancellation, which takes it back, or is refused after it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

from services.erp.connector import CUSTOMER, LOSS, SUPPLIER, Known
from services.erp.jsonrpc import TrytonRpc
from services.erp.plan import Transfer
from services.erp.tryton_read import DOCUMENTS, MARK, Places
from services.outside import Done, Failed, Outcome, Refused

IN, INTERNAL, OUT = DOCUMENTS

STEPS: dict[str, dict[str, str]] = {
    IN: {"draft": "receive", "received": "do"},
    INTERNAL: {"request": "draft", "draft": "wait", "waiting": "assign_force", "assigned": "do"},
    OUT: {"draft": "wait", "waiting": "assign_force", "assigned": "pack", "packed": "do", "shipped": "do"},
}
"""The step that leads a document on, by its state."""

LAST = {INTERNAL: "assigned", OUT: "packed"}
"""The state from which the next step changes stock; a supplier shipment has but that one."""

MOST_STEPS = 8
PARTY = "WAYBILL"
"""Code of the party that stands as supplier and as customer on what we make."""

NO_PRICE = Decimal(0)


class Writer:
    """Books transfers. It caches ids that do not change while it lives."""

    def __init__(self, rpc: TrytonRpc, known: Known) -> None:
        self._rpc, self._known = rpc, known
        self._products: dict[str, dict[str, Any]] = {}
        self._lots: dict[tuple[int, str], int] = {}
        self._fixed: dict[str, Any] = {}

    def forget(self) -> None:
        """Look everything up again: the ERP may be another one than before."""
        self._products, self._lots, self._fixed = {}, {}, {}

    def book(self, wanted: Sequence[tuple[str, Transfer]], places: Places) -> Iterator[Outcome]:
        """An outcome per (key, transfer), in order.

        All that changes no stock is done for all of them together, a call per kind of document and step; then they are done in their
        order, a call for neighbours of one kind. Where Tryton refuses one of them, all are booked one by one.
        """
        try:
            drafts = self._drafts(wanted, places)
            self._lead_up(drafts)
        except (Refused, Failed):
            yield from (self._book_alone(one, places) for one in wanted)
            return
        for model, run in groupby(wanted, key=lambda one: self._model(one[1])):
            together = list(run)
            try:
                self.lead(model, [drafts[key][1] for key, _ in together])
            except (Refused, Failed):
                yield from (self._book_alone(one, places) for one in together)
                continue
            yield from (Done.BOOKED for _ in together)

    def _book_alone(self, one: tuple[str, Transfer], places: Places) -> Outcome:
        try:
            [(model, document)] = self._drafts([one], places).values()
            self.lead(model, [document])
        except (Refused, Failed) as error:
            return error
        return Done.BOOKED

    def _drafts(self, wanted: Sequence[tuple[str, Transfer]], places: Places) -> dict[str, tuple[str, int]]:
        """The document of each key, made where there is none: its kind and id."""
        found: dict[str, tuple[str, int]] = {}
        self._learn([transfer for _, transfer in wanted])
        for model in DOCUMENTS:
            mine = [(key, transfer) for key, transfer in wanted if self._model(transfer) == model]
            if not mine:
                continue
            there = self.chosen(model, [key for key, _ in mine])
            missing = [(key, transfer) for key, transfer in mine if key not in there]
            if missing:
                bodies = [self._document(model, key, transfer, places) for key, transfer in missing]
                made = self._rpc.call(f"model.{model}.create", bodies)
                there |= {key: number for (key, _), number in zip(missing, made, strict=True)}
            found |= {key: (model, number) for key, number in there.items()}
        return found

    def _lead_up(self, drafts: Mapping[str, tuple[str, int]]) -> None:
        """Lead documents as far as changes no stock."""
        for model in DOCUMENTS:
            mine = [number for one, number in drafts.values() if one == model]
            if mine and model != IN:
                self.lead(model, mine, until=LAST[model])

    def chosen(self, model: str, keys: Sequence[str]) -> dict[str, int]:
        """The document of each key that has one; the others of that key are cancelled. Of a key whose documents a person cancelled it
        is one of them: what that means for our ledger is found when changes are read."""
        domain = [["reference", "in", [MARK + key for key in keys]]]
        rows = self._rpc.call(f"model.{model}.search_read", domain, 0, None, [["id", "ASC"]], ["reference", "state"])
        found: dict[str, int] = {}
        spare: list[int] = []
        for row in sorted(rows, key=lambda row: (row["state"] == "cancelled", row["state"] != "done", row["id"])):
            key = row["reference"].removeprefix(MARK)
            if key not in found:
                found[key] = row["id"]
            elif row["state"] != "cancelled":
                spare.append(row["id"])
        if spare:
            self._rpc.call(f"model.{model}.cancel", spare)
        return found

    def lead(self, model: str, documents: Sequence[int], *, until: str = "done") -> None:
        """Lead documents to done (or up to a state), all of one state together. Raises Refused, with what Tryton says against it."""
        refusal: Refused | None = None
        for _ in range(MOST_STEPS):
            if not documents:
                return
            rows = self._rpc.call(f"model.{model}.read", list(documents), ["state"])
            waiting = [(row["state"], row["id"]) for row in rows if row["state"] in STEPS[model] and row["state"] != until]
            documents = [number for _, number in waiting]
            for state, several in groupby(sorted(waiting), key=lambda one: one[0]):
                try:
                    self._rpc.call(f"model.{model}.{STEPS[model][state]}", [number for _, number in several])
                    refusal = None
                except Refused as error:
                    if refusal is not None:
                        raise
                    refusal = error  # a call of ours whose answer was lost may have taken the step meanwhile: look once more
        if documents:
            raise refusal or Failed(f"{model} {documents[0]} does not come to its end in Tryton")

    def internal(self, key: str, transfer: Transfer, places: Places) -> None:
        """An internal shipment of this key, led to done. One of that key that is not done yet stands for an older wish: it is cancelled."""
        domain = [["reference", "=", MARK + key], ["state", "not in", ["done", "cancelled"]]]
        old = self._rpc.call(f"model.{INTERNAL}.search", domain)
        if old:
            self._rpc.call(f"model.{INTERNAL}.cancel", old)
        made = self._rpc.call(f"model.{INTERNAL}.create", [self._document(INTERNAL, key, transfer, places)])
        self.lead(INTERNAL, made)

    def lot(self, product: int, number: str, *, make: bool = True) -> int | None:
        """Id of a product's lot, made where there is none; the oldest of several."""
        found = self._lots.get((product, number))
        if found is None:
            domain = [["product", "=", product], ["number", "=", number]]
            rows = self._rpc.call("model.stock.lot.search", domain, 0, 1, [["id", "ASC"]], context={"active_test": False})
            if not rows and not make:
                return None
            found = int(rows[0] if rows else self._rpc.call("model.stock.lot.create", [{"product": product, "number": number}])[0])
            self._lots[product, number] = found
        return found

    def _learn(self, transfers: Sequence[Transfer]) -> None:
        """Look up the lots and products that are not known yet, together."""
        wanted = {(self.product(one.item_id), one.lot_number) for one in transfers if one.lot_number}
        new = [one for one in wanted if one not in self._lots]
        if new:
            domain = [["product", "in", [product for product, _ in new]], ["number", "in", [number for _, number in new]]]
            context = {"active_test": False}
            rows = self._rpc.call("model.stock.lot.search_read", domain, 0, None, [["id", "DESC"]], ["product", "number"], context=context)
            self._lots |= {(row["product"], row["number"]): row["id"] for row in rows}
        products = [product for product in {self.product(one.item_id) for one in transfers} if str(product) not in self._products]
        if products:
            rows = self._rpc.call("model.product.product.read", products, ["default_uom", "cost_price"])
            self._products |= {str(row["id"]): row for row in rows}

    def product(self, item_id: str) -> int:
        """Id of the product that our item means. Raises Refused."""
        external = self._known.external_item(item_id)
        if external is None:
            raise Refused(f"item {item_id} is not mapped to a product of Tryton")
        return int(external)

    def party(self) -> dict[str, Any]:
        """Our party, made where there is none: {id, addresses}."""
        if "party" not in self._fixed:
            fields = ["addresses"]
            rows = self._rpc.call("model.party.party.search_read", [["code", "=", PARTY]], 0, 1, None, fields)
            if not rows:
                made = self._rpc.call("model.party.party.create", [{"name": "Waybill", "code": PARTY, "addresses": [["create", [{}]]]}])
                rows = self._rpc.call("model.party.party.read", made, fields)
            self._fixed["party"] = rows[0]
        return dict(self._fixed["party"])

    @staticmethod
    def _model(transfer: Transfer) -> str:
        if transfer.from_id == SUPPLIER:
            return IN
        return OUT if transfer.to_id == CUSTOMER else INTERNAL

    def _document(self, model: str, key: str, transfer: Transfer, places: Places) -> dict[str, Any]:
        day = dt.datetime.fromtimestamp(transfer.at_us // 1_000_000, dt.UTC).date()
        company = self._rpc.context["company"]
        from_id, to_id = self._place(transfer.from_id), self._place(transfer.to_id)
        product = self.product(transfer.item_id)
        move = {
            "product": product, "quantity": float(transfer.quantity), "unit": self._product(product)["default_uom"], "company": company,
            "from_location": from_id, "to_location": to_id, "effective_date": day,
        }  # fmt: skip
        if transfer.lot_number:
            move["lot"] = self.lot(product, transfer.lot_number)
        document = {"reference": MARK + key, "company": company, "effective_date": day, "moves": [["create", [move]]]}
        if model == INTERNAL:
            return {**document, "from_location": from_id, "to_location": to_id, "effective_start_date": day}
        move |= {"currency": self._currency(), "unit_price": self._product(product)["cost_price"] if model == IN else NO_PRICE}
        party = self.party()
        if model == IN:
            # With one place for both, Tryton books straight into it instead of through the warehouse's input.
            ends = {"warehouse": places.warehouse[transfer.to_id], "warehouse_input": to_id, "warehouse_storage": to_id}
            return {**document, **ends, "supplier": party["id"]}
        ends = {"warehouse": places.warehouse[transfer.from_id], "warehouse_output": from_id, "warehouse_storage": from_id}
        return {**document, **ends, "customer": party["id"], "delivery_address": party["addresses"][0]}

    def _place(self, name: str) -> int:
        if name not in (SUPPLIER, CUSTOMER, LOSS):
            return int(name)
        if name not in self._fixed:
            kind = {SUPPLIER: "supplier", CUSTOMER: "customer", LOSS: "lost_found"}[name]
            rows = self._rpc.call("model.stock.location.search", [["type", "=", kind]], 0, 1, [["id", "ASC"]])
            if not rows:
                raise Refused(f"Tryton has no location of type {kind}")
            self._fixed[name] = rows[0]
        return int(self._fixed[name])

    def _product(self, product: int) -> dict[str, Any]:
        key = str(product)
        if key not in self._products:
            self._products[key] = self._rpc.call("model.product.product.read", [product], ["default_uom", "cost_price"])[0]
        return self._products[key]

    def _currency(self) -> int:
        if "currency" not in self._fixed:
            company = self._rpc.context["company"]
            self._fixed["currency"] = self._rpc.call("model.company.company.read", [company], ["currency"])[0]["currency"]
        return int(self._fixed["currency"])


def rounded(quantity: Decimal) -> Decimal:
    """Six decimals, as both ledgers keep them."""
    return round(quantity, 6)


def by_place(rows: Sequence[Mapping[str, Any]]) -> dict[str, Decimal]:
    """Quantities by place from Tryton's rows."""
    return {str(row["id"]): rounded(Decimal(repr(row["quantity"] or 0.0))) for row in rows}
