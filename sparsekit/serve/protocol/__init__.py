"""What clients ask and are answered, in the shapes of OpenAI and Cohere. The types are the OpenAPI document's too."""
