"""What people see: the OpenAPI document, its page, the page of the server. Nothing comes from another host."""
