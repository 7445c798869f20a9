// A Go service that keeps search in step: the row and its task commit together, or neither does.
//
//	IDXCTL_DATABASE_URL=postgresql://shop@db1/shop go run . shop_listings 100
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// What a seller offers.
type listing struct {
	title string
	price int
}

// create writes a listing and enqueues its document, in one transaction.
func create(ctx context.Context, db *pgx.Conn, index string, one listing) (id int64, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		row := tx.QueryRow(ctx, "INSERT INTO listings (title, price) VALUES ($1, $2) RETURNING id", one.title, one.price)
		if err := row.Scan(&id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT opensearch_indexing_enqueue($1, $2)", index, strconv.FormatInt(id, 10))
		return err
	})
	return id, err
}

// reprice changes many listings and enqueues their documents, in one statement.
func reprice(ctx context.Context, db *pgx.Conn, index string, factor int) error {
	_, err := db.Exec(ctx, `
		WITH changed AS (UPDATE listings SET price = price * $2::int RETURNING id)
		SELECT opensearch_indexing_enqueue($1, id::text) FROM changed`, index, factor)
	return err
}

var errChangedMind = errors.New("the seller changed their mind")

// withdraw deletes a listing; if the seller changes their mind, neither row nor task is touched.
func withdraw(ctx context.Context, db *pgx.Conn, index string, id int64, sure bool) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM listings WHERE id = $1", id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT opensearch_indexing_enqueue($1, $2, 'delete')", index, strconv.FormatInt(id, 10))
		if err == nil && !sure {
			err = errChangedMind
		}
		return err
	})
}

func run(ctx context.Context, index string, count int) error {
	db, err := pgx.Connect(ctx, os.Getenv("IDXCTL_DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close(ctx)
	var last int64
	for number := 1; number <= count; number++ {
		if last, err = create(ctx, db, index, listing{fmt.Sprintf("lamp %d", number), number}); err != nil {
			return err
		}
	}
	if err = reprice(ctx, db, index, 2); err != nil {
		return err
	}
	if err = withdraw(ctx, db, index, last, true); err != nil {
		return err
	}
	if err = withdraw(ctx, db, index, last-1, false); !errors.Is(err, errChangedMind) {
		return err
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: shop INDEX COUNT")
	}
	count, err := strconv.Atoi(os.Args[2])
	if err == nil {
		err = run(context.Background(), os.Args[1], count)
	}
	if err != nil {
		log.Fatal(err)
	}
}
