"""Every warning about a message that Segment takes all the same, by its code, and what it says."""

REMARKS = {
    "timestamp_without_zone": "{field} has no time zone and was taken as UTC; end it with Z or an offset like -08:00.",
    "timestamp_in_future": "{field} lies more than a day ahead; Segment passes it on as it is.",
    "timestamp_before_1970": "{field} lies before 1970; Segment's Engage may not take the message.",
    "message_id_at_limit": "{field} has exactly 100 characters; one of Segment's pages asks for fewer than 100.",
    "short_message_id": "{field} is short; Segment drops a message whose id anyone used within a day: use a UUID.",
    "long_group_id": "{field} is over 500 characters long; Segment's Unify drops the message.",
    "too_many_fields": "{field} has more than 300 entries; Segment's Unify drops such a message.",
    "deep_nesting": "{field} is nested more than 3 levels deep; many destinations drop what is deeper.",
    "alias_to_itself": "{field} is the same as userId, so the alias joins nothing.",
    "context_type": "{field} is not of the type that Segment documents; destinations may ignore it.",
    "empty_group_id": "{field} is empty; Segment's Unify drops the message: leave it out.",
    "destination_spelling": "{field} differs from Segment's spelling in letter case and has no effect: use {known!r}.",
    "destination_value": "{field} is neither true, false nor an object of options; Segment may still deliver to it.",
    "semantic_event_spelling": "{field} is not what Segment's spec calls it, and destinations understand that name "
    "alone: use {known!r}.",
    "event_name_form": "{field} is not in Segment's form, Object + past-tense verb in Title Case, and every spelling "
    "is an event of its own: use {known!r}.",
    "semantic_property_spelling": "{field} is not what Segment's spec calls it on this event, which alone destinations "
    "understand: use {known!r}.",
    "number_as_text": "{field} is text, which destinations do not count: pass a number, such as 19.99.",
    "currency_code": "{field} is not an ISO 4217 code: use {known}.",
    "email_as_user_id": "{field} is an email address, which may change and is personal: use a lasting id, and pass the "
    "address as traits.email.",
    "created_at_not_a_date": "{field} is not a date that destinations read: pass ISO 8601, such as "
    "2024-01-15T10:30:00Z.",
    "local_time_without_zone": "{field} is a time without a zone, which Segment's Engage does not keep: end it with Z "
    "or an offset like -08:00, or pass context.timezone.",
    "mixed_trait_names": "{field} has names in camelCase and in snake_case, which become two sets of traits: use "
    "{known} throughout.",
    "alias_reversed": "{field} looks like a known user's id and userId like a visitor's: the old id belongs into "
    "previousId, the one to keep into userId. Right only if the user's own id was changed.",
}
"""`{field}` is the field, `{known}` what is meant instead."""
