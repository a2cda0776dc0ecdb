"""The Fused service over HTTP: requests, responses, connections, retries and rate limiting."""
