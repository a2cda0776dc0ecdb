"""The Fused service over HTTP: requests, answers, connections, retries and the rate they keep to."""
