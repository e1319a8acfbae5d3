-- What orders have removed from a DNS provider's zones, for the janitor: by provider, in order.
CREATE INDEX events_removals ON events ((state->'record'->>'dns_provider_id'), position)
    WHERE topic IN ('order.record_removed', 'order.record_left');
