"""Documents for people: what is known of a shipment (or of a replay) as one self-contained HTML or PDF file, sealed with a signature.

A document is plain data (`document.py`) with figures of plain shapes (`figure.py`), which `html.py` and `pdf.py` write down.
"""
