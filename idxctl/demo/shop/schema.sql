-- A marketplace as teams have it: listings with images, attributes and translations, in categories and storefronts.
CREATE TABLE categories (
    id bigserial PRIMARY KEY,
    parent_id bigint REFERENCES categories,
    name text NOT NULL,
    slug text NOT NULL UNIQUE
);
CREATE TABLE storefronts (
    id bigserial PRIMARY KEY,
    name text NOT NULL,
    rating numeric(3,2)
);
CREATE TABLE listings (
    id bigserial PRIMARY KEY,
    user_id bigint NOT NULL,
    category_id bigint NOT NULL REFERENCES categories,
    storefront_id bigint REFERENCES storefronts,
    title text NOT NULL,
    description text NOT NULL,
    price numeric(12,2) NOT NULL,
    currency text NOT NULL DEFAULT 'EUR',
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('draft', 'active', 'sold')),
    stock int NOT NULL DEFAULT 1,
    views_count int NOT NULL DEFAULT 0,
    city text,
    country text,
    lat double precision,
    lon double precision,
    tags text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE listing_images (
    id bigserial PRIMARY KEY,
    listing_id bigint NOT NULL REFERENCES listings ON DELETE CASCADE,
    url text NOT NULL,
    is_main boolean NOT NULL DEFAULT false,
    position int NOT NULL DEFAULT 1
);
CREATE TABLE listing_attributes (
    id bigserial PRIMARY KEY,
    listing_id bigint NOT NULL REFERENCES listings ON DELETE CASCADE,
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE listing_translations (
    listing_id bigint NOT NULL REFERENCES listings ON DELETE CASCADE,
    language text NOT NULL,
    title text NOT NULL,
    PRIMARY KEY (listing_id, language)
);
CREATE INDEX ON listings (category_id);
CREATE INDEX ON listings (storefront_id);
CREATE INDEX ON listings (status);
CREATE INDEX ON listing_images (listing_id);
CREATE INDEX ON listing_attributes (listing_id);
