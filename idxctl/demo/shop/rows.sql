-- name: categories
-- Five hundred categories, in two levels.
INSERT INTO categories (name, slug, parent_id)
SELECT 'Category ' || i, 'category-' || i, CASE WHEN i > 20 THEN i %% 20 + 1 END
FROM generate_series(1, 500) i;

-- name: storefronts
-- Two thousand storefronts with ratings from 0.00 to 4.99.
INSERT INTO storefronts (name, rating)
SELECT 'Store ' || i, (i %% 500) / 100.0
FROM generate_series(1, 2000) i;

-- name: listings
-- The listings: a third active, sold and draft each; descriptions with accents, quotes and line breaks in them.
INSERT INTO listings (
    user_id, category_id, storefront_id, title, description, price, status, stock, city, country, lat, lon, tags,
    created_at, updated_at
)
SELECT i %% 10000 + 1,
       i %% 500 + 1,
       CASE WHEN i %% 3 = 0 THEN i %% 2000 + 1 END,
       'Listing ' || i || ' ' || (array['vintage', 'new', 'used', 'rare', 'handmade'])[i %% 5 + 1] || ' '
           || (array['bicycle', 'lamp', 'sofa', 'phone', 'guitar', 'camera', 'jacket'])[i %% 7 + 1],
       (SELECT string_agg((array[
                   'solid', 'oak', 'light', 'fast', 'clean', 'box', 'with', 'original', 'invoice', 'battery', 'lasts', 'two',
                   'days', 'scratch', 'on', 'left', 'side', 'pick', 'up', 'only', 'delivery', 'possible', 'price', 'is',
                   'final', 'čist', 'šal', 'đubre', 'crème', '"quoted"', E'line\nbreak'
               ])[1 + (hashint4(i * 97 + k) & 2147483647) %% 31], ' ')
        FROM generate_series(1, 90) k),
       (i %% 100000) / 7.0,
       (array['active', 'sold', 'draft'])[i %% 3 + 1],
       i %% 50,
       (array['Beograd', 'Novi Sad', 'Niš', 'Paris', 'Berlin'])[i %% 5 + 1],
       'RS',
       44.8 + (i %% 100) / 100.0,
       20.4 + (i %% 77) / 100.0,
       array['tag' || i %% 31, 'tag' || i %% 17],
       timestamptz '2025-01-01 UTC' + i * interval '1 second',
       timestamptz '2025-06-01 UTC' + i * interval '1 second'
FROM generate_series(1, %(rows)s::int) i;

-- name: images
-- Two images for each listing, the first one the main one.
INSERT INTO listing_images (listing_id, url, is_main, position)
SELECT l, 'https://cdn.example.com/listings/' || l || '/' || p || '.webp', p = 1, p
FROM generate_series(1, %(rows)s::int) l, generate_series(1, 2) p;

-- name: attributes
-- Three attributes for each listing.
INSERT INTO listing_attributes (listing_id, name, value)
SELECT l, 'attr' || p, 'value ' || (l * p) %% 1000
FROM generate_series(1, %(rows)s::int) l, generate_series(1, 3) p;

-- name: translations
-- Two translations for every second listing.
INSERT INTO listing_translations (listing_id, language, title)
SELECT l, lang, 'Listing ' || l || ' (' || lang || ')'
FROM generate_series(1, %(rows)s::int) l, unnest(array['sr', 'en']) lang
WHERE l %% 2 = 0;
