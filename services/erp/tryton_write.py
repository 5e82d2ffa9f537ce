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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

from services.erp.connector import CUSTOMER, LOSS, SUPPLIER, Known
from services.erp.jsonrpc import TrytonRpc
from services.erp.plan import Transfer
from services.erp.tryton_read import DOCUMENTS, MARK, Places
from services.outside import Done, Failed, Outcome, Refused

IN, INTERNAL, OUT = DOCUMENTS
DONE = "done"

STEPS: dict[str, dict[str, tuple[str, str]]] = {
    IN: {"draft": ("receive", "received"), "received": ("do", DONE)},
    INTERNAL: {
        "request": ("draft", "draft"), "draft": ("wait", "waiting"), "waiting": ("assign_force", "assigned"), "assigned": ("do", DONE),
    },
    OUT: {
        "draft": ("wait", "waiting"), "waiting": ("assign_force", "assigned"), "assigned": ("pack", "packed"), "packed": ("do", DONE),
        "shipped": ("do", DONE),
    },
}  # fmt: skip
"""By a document's state the step that leads it on, and the state that it has then."""

LAST = {IN: "received", INTERNAL: "assigned", OUT: "packed"}
"""The state from which the next step changes stock."""

NEW = "draft"
"""The state of a document that was just made."""

MOST_STEPS = 8
PARTY = "WAYBILL"
"""Code of the party that stands as supplier and as customer on what we make."""

NO_PRICE = Decimal(0)


@dataclass(slots=True)
class Draft:
    """A document of ours, and the state that it should have."""

    model: str
    number: int
    key: str
    state: str


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
        order, a call for neighbours of one kind; then it is read how they stand. Where Tryton refuses some, these are booked one by one.
        """
        alone: set[str] = set()
        try:
            drafts = self._drafts(wanted, places)
            for model in DOCUMENTS:
                self._step(model, [one for one in drafts.values() if one.model == model], until=LAST[model])
        except (Refused, Failed):
            drafts, alone = {}, {key for key, _ in wanted}
        for model, run in groupby([drafts[key] for key, _ in wanted if key in drafts], key=lambda one: one.model):
            together = list(run)
            try:
                self._step(model, together)
            except (Refused, Failed):
                alone |= {one.key for one in together}
        alone |= self._unfinished(drafts.values())
        for one in wanted:
            yield self._book_alone(one, places) if one[0] in alone else Done.BOOKED

    def _book_alone(self, one: tuple[str, Transfer], places: Places) -> Outcome:
        try:
            [draft] = self._drafts([one], places).values()
            self.lead(draft.model, [draft.number])
        except (Refused, Failed) as error:
            return error
        return Done.BOOKED

    def _drafts(self, wanted: Sequence[tuple[str, Transfer]], places: Places) -> dict[str, Draft]:
        """The document of each key, made where there is none."""
        found: dict[str, Draft] = {}
        self._learn([transfer for _, transfer in wanted])
        for model in DOCUMENTS:
            mine = [(key, transfer) for key, transfer in wanted if self._model(transfer) == model]
            if not mine:
                continue
            found |= self.chosen(model, [key for key, _ in mine])
            found |= self._make(model, [(key, transfer) for key, transfer in mine if key not in found], places)
        return found

    def _make(self, model: str, missing: Sequence[tuple[str, Transfer]], places: Places) -> dict[str, Draft]:
        if not missing:
            return {}
        bodies = [self._document(model, key, transfer, places) for key, transfer in missing]
        made = self._rpc.call(f"model.{model}.create", bodies)
        return {key: Draft(model, number, key, NEW) for (key, _), number in zip(missing, made, strict=True)}

    def chosen(self, model: str, keys: Sequence[str]) -> dict[str, Draft]:
        """The document of each key that has one; the others of that key are cancelled. Of a key whose documents a person cancelled it
        is one of them: what that means for our ledger is found when changes are read."""
        domain = [["reference", "in", [MARK + key for key in keys]]]
        rows = self._rpc.call(f"model.{model}.search_read", domain, 0, None, [["id", "ASC"]], ["reference", "state"])
        found: dict[str, Draft] = {}
        spare: list[int] = []
        for row in sorted(rows, key=lambda row: (row["state"] == "cancelled", row["state"] != DONE, row["id"])):
            key = row["reference"].removeprefix(MARK)
            if key not in found:
                found[key] = Draft(model, row["id"], key, row["state"])
            elif row["state"] != "cancelled":
                spare.append(row["id"])
        if spare:
            self._rpc.call(f"model.{model}.cancel", spare)
        return found

    def _step(self, model: str, drafts: Sequence[Draft], *, until: str = DONE) -> None:
        """Lead documents of one kind on, by the states that they must have by now: Tryton passes over one that has another, so how
        they stand in the end is to be read. Raises Refused, Failed; then it is not known how they stand."""
        while waiting := [one for one in drafts if one.state != until and one.state in STEPS[model]]:
            for state in {one.state for one in waiting}:
                several = [one for one in waiting if one.state == state]
                step, after = STEPS[model][state]
                self._rpc.call(f"model.{model}.{step}", [one.number for one in several])
                for one in several:
                    one.state = after

    def _unfinished(self, drafts: Collection[Draft]) -> set[str]:
        """The keys of documents that can still be led on."""
        found: set[str] = set()
        for model in DOCUMENTS:
            mine = {one.number: one.key for one in drafts if one.model == model}
            rows = self._rpc.call(f"model.{model}.read", list(mine), ["state"]) if mine else []
            found |= {mine[row["id"]] for row in rows if row["state"] in STEPS[model]}
        return found

    def lead(self, model: str, documents: Sequence[int]) -> None:
        """Lead documents to done, all of one state together, reading how they stand at every step. Raises Refused, with what Tryton
        says against it."""
        refusal: Refused | None = None
        for _ in range(MOST_STEPS):
            rows = self._rpc.call(f"model.{model}.read", list(documents), ["state"])
            waiting = [(row["state"], row["id"]) for row in rows if row["state"] in STEPS[model]]
            documents = [number for _, number in waiting]
            if not documents:
                return
            for state, several in groupby(sorted(waiting), key=lambda one: one[0]):
                try:
                    self._rpc.call(f"model.{model}.{STEPS[model][state][0]}", [number for _, number in several])
                    refusal = None
                except Refused as error:
                    if refusal is not None:
                        raise
                    refusal = error  # a call of ours whose answer was lost may have taken the step meanwhile: look once more
        raise refusal or Failed(f"{model} {documents[0]} does not come to its end in Tryton")

    def internal(self, wanted: Sequence[tuple[str, Transfer]], places: Places) -> None:
        """Internal shipments of these keys, led to done. One of such a key that is not done yet stands for an older wish: it is
        cancelled. Raises Refused, Failed."""
        if not wanted:
            return
        keys = [MARK + key for key, _ in wanted]
        old = self._rpc.call(f"model.{INTERNAL}.search", [["reference", "in", keys], ["state", "not in", [DONE, "cancelled"]]])
        if old:
            self._rpc.call(f"model.{INTERNAL}.cancel", old)
        self._learn([transfer for _, transfer in wanted])
        drafts = self._make(INTERNAL, wanted, places)
        self._step(INTERNAL, list(drafts.values()))
        self.lead(INTERNAL, [one.number for one in drafts.values()])

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
