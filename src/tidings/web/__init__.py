"""The HTTP edge: routes, authentication, bounds, and turning what the use-cases give into answers.

app         the ASGI application and its routes
calls       one request through the common steps: authenticate, meter, read, answer
answers     bytes and headers of every response, errors included
webhooks    the five calls, and the log of attempts
publishing  events and resources
tokens      tokens
health      liveness and readiness
openapi     the description of every call
server      the HTTP server, and what it bears with
"""
