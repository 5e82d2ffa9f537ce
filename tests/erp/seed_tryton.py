"""Fills an empty Tryton database with a company, three storage locations, items with lots, and their first stock.

Run by Tryton's own Python (tryton.py starts it): seed_tryton.py CONFIG DATABASE ITEMS PASSWORD
"""

import datetime
import random
import sys

from trytond.config import config

config.update_etc(sys.argv[1])

from trytond.pool import Pool  # noqa: E402 (Tryton reads its configuration when it is imported)
from trytond.transaction import Transaction  # noqa: E402

DATABASE, ITEMS, PASSWORD = sys.argv[2], int(sys.argv[3]), sys.argv[4]
SEED = 11
FIRST_DAY = datetime.date(2026, 1, 1)


def gtin13(number: int) -> str:
    """A GTIN-13 with its check digit."""
    body = f"29{number:010d}"
    return body + str(-sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(body)) % 10)


def main() -> None:
    Pool.start()
    pool = Pool(DATABASE)
    pool.init()
    with Transaction().start(DATABASE, 1, context={"active_test": False}) as transaction:
        company = make_company(pool)
        with transaction.set_context(company=company.id):
            places = make_places(pool)
            make_users(pool, company)
            stock(pool, company, places, make_items(pool))
        transaction.commit()


def chunked(do, values, size=50):
    """What `do` gives for all of the values, some at a time: Tryton nests its queries."""
    return [one for start in range(0, len(values), size) for one in do(values[start : start + size])]


def make_company(pool):
    Currency, Party, Company = pool.get("currency.currency"), pool.get("party.party"), pool.get("company.company")
    euro = Currency(name="Euro", symbol="€", code="EUR", numeric_code="978", rounding="0.01", digits=2)
    euro.save()
    firm, supplier, customer = (
        Party(name=name, code=code, addresses=[{}])
        for name, code in (("Cold Trade", "FIRM"), ("Vaccine Works", "SUPPLIER"), ("Clinic", "CUSTOMER"))
    )
    Party.save([firm, supplier, customer])
    company = Company(party=firm, currency=euro)
    company.save()
    return company


def make_places(pool):
    """Two warehouses, NORTH with two cold rooms and SOUTH with one; gives the three rooms."""
    Location = pool.get("stock.location")
    (north,) = Location.search([("type", "=", "warehouse")])
    north.name, north.code = "North", "NORTH"
    north.storage_location.code = "NORTH-STO"
    north.storage_location.save()
    north.save()
    inner = {
        kind: Location(name=f"South {kind}", code=f"SOUTH-{kind[:3].upper()}", type="storage") for kind in ("input", "output", "storage")
    }
    Location.save(list(inner.values()))
    (lost,) = Location.search([("type", "=", "lost_found")])
    south = Location(
        name="South",
        code="SOUTH",
        type="warehouse",
        input_location=inner["input"],
        output_location=inner["output"],
        storage_location=inner["storage"],
        lost_found_location=lost,
    )
    south.save()
    if not north.lost_found_location:
        north.lost_found_location = lost
        north.save()
    rooms = [
        Location(name=name, code=code, type="storage", parent=parent.storage_location)
        for name, code, parent in (("Cold 1", "COLD-1", north), ("Cold 2", "COLD-2", north), ("Cold 3", "COLD-3", south))
    ]
    Location.save(rooms)
    return rooms


def make_users(pool, company):
    """`waybill`, whom the connector logs in as, and `clerk`, who does the movements in Tryton."""
    User, Group = pool.get("res.user"), pool.get("res.group")
    groups = Group.search(
        [
            (
                "name",
                "in",
                [
                    "Stock",
                    "Stock Administration",
                    "Stock Force Assignment",
                    "Product Administration",
                    "Party Administration",
                    "Stock Cancellation",
                ],
            )
        ]
    )
    for login in ("waybill", "clerk"):
        user = User(name=login.title(), login=login, password=PASSWORD, companies=[company], company=company, groups=groups)
        user.save()


def make_items(pool):
    Template, Uom, Lot = pool.get("product.template"), pool.get("product.uom"), pool.get("stock.lot")
    (unit,) = Uom.search([("symbol", "=", "u")])
    templates = chunked(
        Template.create,
        [
            {
                "name": f"Vaccine {number:04d}",
                "default_uom": unit.id,
                "type": "goods",
                "list_price": None,
                "cost_price_method": "fixed",
                "products": [
                    (
                        "create",
                        [
                            {
                                "suffix_code": f"V{number:04d}",
                                "identifiers": [("create", [{"type": "ean", "code": gtin13(number)}])] if number % 2 else [],
                            }
                        ],
                    )
                ],
            }
            for number in range(ITEMS)
        ],
    )
    products = [template.products[0] for template in templates]
    lots = [
        {"number": f"L{number:04d}{letter}", "product": product.id}
        for number, product in enumerate(products)
        for letter in ("A", "B")[: 1 + number % 2]
    ]
    return chunked(Lot.create, lots)


def stock(pool, company, rooms, lots):
    """Every lot's first stock, from the supplier into one room."""
    Move, Location = pool.get("stock.move"), pool.get("stock.location")
    (supplier,) = Location.search([("type", "=", "supplier")])
    chance = random.Random(SEED)
    moves = chunked(
        Move.create,
        [
            {
                "product": lot.product.id,
                "lot": lot.id,
                "unit": lot.product.default_uom.id,
                "quantity": float(chance.randrange(100, 1000)),
                "from_location": supplier.id,
                "to_location": rooms[chance.randrange(3)].id,
                "company": company.id,
                "unit_price": "1",
                "currency": company.currency.id,
                "effective_date": FIRST_DAY,
            }
            for lot in lots
        ],
    )
    chunked(lambda some: Move.do(some) or [], moves)


main()
