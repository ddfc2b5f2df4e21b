-- NOTIFY is said by the transactions that need it: one whose own process relays wakes it directly. At
-- commit a notification holds a lock that all committing transactions with one wait for.

drop trigger outbox_written on outbox;
drop function outbox_notify();
