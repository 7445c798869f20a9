-- Tables of another style: uuid keys, CamelCase names, two foreign keys to one table, a tree as the root, many to many both ways.
CREATE SCHEMA campus;
CREATE TABLE campus."Person" ("personId" uuid PRIMARY KEY DEFAULT gen_random_uuid(), "fullName" text NOT NULL, "eMail" text, phone text);
CREATE TABLE campus."Subject" (id serial PRIMARY KEY, title text NOT NULL, "parentId" int REFERENCES campus."Subject" ON DELETE SET NULL, archived boolean NOT NULL DEFAULT false);
CREATE TABLE campus."Course" (
    id serial PRIMARY KEY, "subjectId" int REFERENCES campus."Subject" ON DELETE CASCADE, "teacherId" uuid REFERENCES campus."Person" ON DELETE SET NULL,
    "deputyId" uuid REFERENCES campus."Person" ON DELETE SET NULL, name text NOT NULL, status text NOT NULL DEFAULT 'open', fee numeric(8, 2), room text, "viewsCount" int NOT NULL DEFAULT 0,
    at tstzrange NOT NULL DEFAULT tstzrange('2025-01-01', NULL), grid double precision[]
);
CREATE TABLE campus."CourseText" (course int NOT NULL REFERENCES campus."Course" ON DELETE CASCADE, lang char(2) NOT NULL, body text, PRIMARY KEY (course, lang));
CREATE TABLE campus."Topic" (id bigserial PRIMARY KEY, word text NOT NULL UNIQUE);
CREATE TABLE campus."CourseTopic" ("courseId" int NOT NULL REFERENCES campus."Course" ON DELETE CASCADE, "topicId" bigint NOT NULL REFERENCES campus."Topic" ON DELETE CASCADE, weight real NOT NULL DEFAULT 1, PRIMARY KEY ("courseId", "topicId"));
CREATE TABLE campus."Chapter" (id bigserial PRIMARY KEY, "courseId" int NOT NULL REFERENCES campus."Course" ON DELETE CASCADE, no int NOT NULL, title text NOT NULL);
CREATE TABLE campus."Exercise" (id bigserial PRIMARY KEY, "chapterId" bigint REFERENCES campus."Chapter" ON DELETE CASCADE, text text, "authorId" uuid REFERENCES campus."Person" ON DELETE SET NULL);
CREATE TABLE campus."Enrolment" (id bigserial PRIMARY KEY, "courseId" int NOT NULL REFERENCES campus."Course" ON DELETE CASCADE, "personId" uuid REFERENCES campus."Person" ON DELETE CASCADE, grade int);
CREATE INDEX ON campus."Course" ("subjectId"); CREATE INDEX ON campus."Course" ("teacherId"); CREATE INDEX ON campus."Course" ("deputyId"); CREATE INDEX ON campus."Subject" ("parentId");
CREATE INDEX ON campus."CourseTopic" ("topicId"); CREATE INDEX ON campus."Chapter" ("courseId"); CREATE INDEX ON campus."Exercise" ("chapterId"); CREATE INDEX ON campus."Exercise" ("authorId");
CREATE INDEX ON campus."Enrolment" ("courseId"); CREATE INDEX ON campus."Enrolment" ("personId");
INSERT INTO campus."Person" ("fullName", "eMail") SELECT 'Person ' || i, 'p' || i || '@example.com' FROM generate_series(1, 12) i;
INSERT INTO campus."Subject" (title, "parentId") SELECT 'Subject ' || i, CASE WHEN i > 1 THEN i / 2 END FROM generate_series(1, 15) i;
INSERT INTO campus."Course" ("subjectId", "teacherId", "deputyId", name, fee, grid)
SELECT i % 15 + 1, (SELECT "personId" FROM campus."Person" ORDER BY "fullName" OFFSET i % 12 LIMIT 1), (SELECT "personId" FROM campus."Person" ORDER BY "fullName" OFFSET i % 7 LIMIT 1), 'Course ' || i, i * 1.25, array[i, i / 3.0]
FROM generate_series(1, 40) i;
INSERT INTO campus."CourseText" SELECT i, lang, 'text ' || i FROM generate_series(1, 40) i, unnest(array['en', 'sr']) lang;
INSERT INTO campus."Topic" (word) SELECT 'topic ' || i FROM generate_series(1, 9) i;
INSERT INTO campus."CourseTopic" SELECT i, i % 9 + 1 FROM generate_series(1, 40) i UNION SELECT i, i % 4 + 1 FROM generate_series(1, 40) i;
INSERT INTO campus."Chapter" ("courseId", no, title) SELECT i, n, 'chapter ' || n FROM generate_series(1, 40) i, generate_series(1, 2) n;
INSERT INTO campus."Exercise" ("chapterId", text) SELECT i, 'exercise ' || i FROM generate_series(1, 80) i;
