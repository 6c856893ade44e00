"""What the HTTP interface answers beyond the domain's own types: one struct a shape, for server and client alike.

The store fills them, the API encodes them and describes them in its OpenAPI document, the client decodes them. A field
that is added later gets a default, so that a client of today can read the answers of a server of yesterday; a client
ignores fields that it does not know.
"""
