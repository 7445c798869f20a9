"""OpenSearch: the client, bulks, aliases, scans."""
