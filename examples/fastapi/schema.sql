CREATE TABLE listings (
    id bigserial PRIMARY KEY,
    title text NOT NULL,
    price numeric(12, 2) NOT NULL,
    status text NOT NULL DEFAULT 'active'
);
