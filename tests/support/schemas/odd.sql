-- One column of nearly each type, composite keys, names that need quotes, a tree in the root itself, rows of every relation.
CREATE SCHEMA sales; CREATE EXTENSION IF NOT EXISTS citext; CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS ltree;
CREATE TYPE mood AS ENUM ('good','bad'); CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text);
CREATE TABLE "Brand"(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "Name" text, email text);
CREATE TABLE sales.region(tenant int, code char(3), name text, parent char(3), PRIMARY KEY (tenant, code));
CREATE TABLE warehouse(tenant int, id int, name text, "order" int, PRIMARY KEY(tenant,id));
CREATE TABLE product(
 tenant int NOT NULL, id int NOT NULL, "brandId" uuid REFERENCES "Brand", wh int, title varchar(200), sku varchar(20), mood mood, moods mood[], qty posint,
 price money, cost numeric, weight numeric(20,3), big numeric(30,0), ratio real, d double precision, born date, seen timestamptz, ts timestamp, dur interval, t time,
 ip inet, net cidr, mac macaddr, j json, jb jsonb, jarr jsonb, js jsonb, r int4range, dr daterange, nr numrange, mr int8multirange, pt point, pts point[], h hstore, path ltree, c citext, cs citext[],
 bits bit(3), b bytea, tsv tsvector, x xml, p pair, ps pair[], nums numeric(10,2)[], ranges int4range[], "weird ""name" text, "päöß" text, big_text text, v int GENERATED ALWAYS AS (tenant*2) STORED, password text, deleted_at timestamptz,
 parent_tenant int, parent_id int,
 PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, wh) REFERENCES warehouse(tenant,id), FOREIGN KEY (parent_tenant, parent_id) REFERENCES product(tenant,id));
CREATE TABLE product_tag(tenant int, product int, tag int, weight int, PRIMARY KEY(tenant,product,tag), FOREIGN KEY(tenant,product) REFERENCES product ON DELETE CASCADE);
CREATE TABLE tag(id serial PRIMARY KEY, label text, "group" text); ALTER TABLE product_tag ADD FOREIGN KEY (tag) REFERENCES tag;
CREATE TABLE product_note(product int, tenant int, body text, note_at timestamptz, FOREIGN KEY(tenant,product) REFERENCES product);
CREATE TABLE product_detail(tenant int, id int, blurb text, PRIMARY KEY(tenant,id), FOREIGN KEY(tenant,id) REFERENCES product);
CREATE TABLE variant(id serial PRIMARY KEY, tenant int, product int, color text, is_deleted boolean, FOREIGN KEY(tenant,product) REFERENCES product ON DELETE CASCADE);
CREATE TABLE variant_size(variant int REFERENCES variant ON DELETE CASCADE, size text, position int, PRIMARY KEY(variant,size));
CREATE TABLE related(tenant int, a int, b int, PRIMARY KEY(tenant,a,b), FOREIGN KEY(tenant,a) REFERENCES product, FOREIGN KEY(tenant,b) REFERENCES product);
CREATE TABLE order_line(id serial PRIMARY KEY, tenant int, product int, FOREIGN KEY(tenant,product) REFERENCES product);
INSERT INTO "Brand"("Name") VALUES ('Acme'); INSERT INTO warehouse VALUES (1,1,'north',1); INSERT INTO tag(label) VALUES ('a'),('b');
INSERT INTO product(tenant,id,"brandId",wh,title,sku,mood,moods,qty,price,cost,weight,big,ratio,d,born,seen,ts,dur,t,ip,net,mac,j,jb,jarr,js,r,dr,nr,mr,pt,pts,h,path,c,cs,bits,b,tsv,x,p,ps,nums,ranges,"weird ""name","päöß",parent_tenant,parent_id)
 SELECT 1,i,(SELECT id FROM "Brand"),1,'t'||i,'s'||i,'good','{good,bad}',i,'$12.30',1.5,2.125,12345678901234567890,1.5,'NaN','infinity','2020-01-01','20000-01-01','1 day 2 hours','10:00','10.0.0.1/24','10.0.0.0/24','08:00:2b:01:02:03','{"a":1}','{"a":{"b":[1,2]}}','[1,"a"]','"text"','[1,5)','[2020-01-01,)','empty','{[1,3),[5,7)}','(20.4,44.8)','{"(1,2)"}','a=>1','a.b.c','X','{A,b}',B'101','\x01','a b',NULL,'(1,x)','{"(1,x)"}','{1.25,NULL}','{"[1,2)","empty"}','q','u',CASE WHEN i>1 THEN 1 END,CASE WHEN i>1 THEN i-1 END FROM generate_series(1,20) i;
INSERT INTO product_tag SELECT 1,i,1+i%2,i FROM generate_series(1,20) i; INSERT INTO product_note SELECT i,1,'n',now() FROM generate_series(1,20) i, generate_series(1,2);
INSERT INTO product_detail SELECT 1,i,'b' FROM generate_series(1,10) i; INSERT INTO variant(tenant,product,color) SELECT 1,i,'red' FROM generate_series(1,20) i; INSERT INTO variant_size SELECT i,'XL',1 FROM generate_series(1,20) i; INSERT INTO related SELECT 1,i,i+1 FROM generate_series(1,19) i;
