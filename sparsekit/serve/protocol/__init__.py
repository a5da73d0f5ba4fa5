"""Bodies of requests and responses, as OpenAI and Cohere have them; the OpenAPI document is made of the types."""
