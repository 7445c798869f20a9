SELECT l.id AS document_id,
       jsonb_build_object('title', l.title, 'price', l.price, 'status', l.status) AS document
FROM listings l
