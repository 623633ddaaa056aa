package main

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// A table prints rows while they come. It holds a batch of them to find the widths of the columns, which
// only grow from one batch to the next.
type table struct {
	a      *app
	heads  []string
	right  []bool // columns of numbers
	widths []int
	rows   [][]string
	reds   []bool // rows in red
	begun  bool
}

const batch = 256

func (a *app) newTable(heads ...string) *table {
	t := &table{a: a, right: make([]bool, len(heads)), widths: make([]int, len(heads))}
	for i, head := range heads {
		head, t.right[i] = strings.CutPrefix(head, ">")
		t.heads = append(t.heads, head)
		t.widths[i] = utf8.RuneCountInString(head)
	}
	return t
}

// add adds a row, and prints the batch if it is full.
func (t *table) add(red bool, cells ...string) error {
	t.rows, t.reds = append(t.rows, cells), append(t.reds, red)
	if len(t.rows) == batch {
		return t.flush()
	}
	return nil
}

// flush prints the rows that are held.
func (t *table) flush() error {
	for _, row := range t.rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	w := bufio.NewWriter(t.a.out)
	if !t.begun && len(t.rows) > 0 {
		t.begun = true
		io.WriteString(w, t.a.paint(bold, t.line(t.heads))+"\n")
	}
	for i, row := range t.rows {
		line := t.line(row)
		if t.reds[i] {
			line = t.a.paint(red, line)
		}
		io.WriteString(w, line+"\n")
	}
	t.rows, t.reds = t.rows[:0], t.reds[:0]
	return w.Flush()
}

func (t *table) line(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		space := strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(cell)))
		switch {
		case t.right[i]:
			b.WriteString(space + cell)
		case i < len(cells)-1:
			b.WriteString(cell + space)
		default:
			b.WriteString(cell)
		}
		if i < len(cells)-1 {
			b.WriteString("  ")
		}
	}
	return b.String()
}
