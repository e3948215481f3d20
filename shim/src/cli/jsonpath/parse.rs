//! Reading of templates and paths. Every fault names its character, counted from 1.

use anyhow::bail;
use serde_json::Value;

use super::{Operand, Operator, Part, Path, Step};

/// A whole template.
pub fn template(text: &str) -> anyhow::Result<Vec<Part>> {
    let mut parser = Parser::new(text);
    if !text.contains('{') {
        bail!(
            "jsonpath {text:?} has no {{…}} in it: write a path in braces, like '{{.metadata.name}}'"
        );
    }
    parser.parts(false)
}

/// A path and nothing else.
pub fn path(text: &str) -> anyhow::Result<Path> {
    let mut parser = Parser::new(text);
    let path = parser.path()?;
    parser.blanks();
    match parser.peek() {
        None => Ok(path),
        Some(c) => parser.wrong(&format!("{c:?} cannot follow a path")),
    }
}

/// What cannot be part of a name unless `\` stands before it.
const NO_NAME: &str = ".,[]$@{}()'\"=!<>*&|?+;^%#~`";

struct Parser<'a> {
    source: &'a str,
    text: Vec<char>,
    at: usize,
}

impl Parser<'_> {
    fn new(source: &str) -> Parser<'_> {
        Parser { source, text: source.chars().collect(), at: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.at += 1;
        }
    }

    fn wrong<T>(&self, what: &str) -> anyhow::Result<T> {
        bail!("jsonpath {:?}, at character {}: {what}", self.source, self.at + 1)
    }

    fn expect(&mut self, wanted: char, what: &str) -> anyhow::Result<()> {
        if self.take(wanted) { Ok(()) } else { self.wrong(what) }
    }

    /// Text and actions; in a range up to its `{end}`.
    fn parts(&mut self, in_range: bool) -> anyhow::Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut constant = String::new();
        while let Some(c) = self.peek() {
            if c != '{' {
                constant.push(c);
                self.at += 1;
                continue;
            }
            if !constant.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut constant)));
            }
            self.at += 1;
            self.blanks();
            let begin = self.at;
            match self.word().as_str() {
                "" => parts.push(self.action()?),
                "range" => parts.push(self.range()?),
                "end" if in_range => {
                    self.close()?;
                    return Ok(parts);
                }
                word => {
                    self.at = begin;
                    let fault = match word {
                        "end" => "{end} without {range}".to_owned(),
                        _ => format!("unknown word {word:?}: a path begins with a dot"),
                    };
                    return self.wrong(&fault);
                }
            }
        }
        if in_range {
            return self.wrong("{range} has no {end}");
        }
        if !constant.is_empty() {
            parts.push(Part::Text(constant));
        }
        Ok(parts)
    }

    fn word(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.text[begin..self.at].iter().collect()
    }

    fn close(&mut self) -> anyhow::Result<()> {
        self.blanks();
        match self.peek() {
            Some('}') => {
                self.at += 1;
                Ok(())
            }
            None => self.wrong("\"{\" is not closed"),
            Some(c) => self.wrong(&format!("{c:?} is not understood here; \"}}\" was expected")),
        }
    }

    fn action(&mut self) -> anyhow::Result<Part> {
        let part = match self.peek() {
            Some('"' | '\'') => Part::Text(self.quoted()?),
            None => return self.wrong("\"{\" is not closed"),
            _ => Part::Values(self.path()?),
        };
        self.close()?;
        Ok(part)
    }

    fn range(&mut self) -> anyhow::Result<Part> {
        self.blanks();
        let path = self.path()?;
        self.close()?;
        Ok(Part::Range(path, self.parts(true)?))
    }

    /// `$` or `@` and steps; a dot alone is the value itself.
    fn path(&mut self) -> anyhow::Result<Path> {
        let mut begun = self.take('$') || self.take('@');
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('[') => steps.push(self.brackets()?),
                Some('.') => {
                    self.at += 1;
                    if self.take('.') {
                        steps.push(Step::Descend);
                        if self.peek() == Some('[') {
                            continue;
                        }
                    }
                    if steps.is_empty() && !begun && self.name_ends() {
                        begun = true;
                        break;
                    }
                    steps.push(self.field()?);
                }
                _ => break,
            }
        }
        if steps.is_empty() && !begun {
            return self.wrong("a path was expected, like .metadata.name");
        }
        Ok(Path(steps))
    }

    /// Whether what follows a dot can be no name, and ends the path.
    fn name_ends(&self) -> bool {
        self.peek().is_none_or(|c| c.is_whitespace() || c == '}' || c == ')')
    }

    fn field(&mut self) -> anyhow::Result<Step> {
        if self.take('*') {
            return Ok(Step::All);
        }
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let escaped = c == '\\';
            if escaped {
                self.at += 1;
            } else if c.is_whitespace() || NO_NAME.contains(c) {
                break;
            }
            let Some(c) = self.peek() else { return self.wrong("\"\\\" escapes nothing") };
            name.push(c);
            self.at += 1;
        }
        if name.is_empty() {
            return self.wrong("a name is missing after \".\"");
        }
        Ok(Step::Key(name, Vec::new()))
    }

    /// `[…]`
    fn brackets(&mut self) -> anyhow::Result<Step> {
        self.at += 1;
        self.blanks();
        if self.take('?') {
            self.expect('(', "a filter is written [?(…)]")?;
            let step = self.filter()?;
            self.blanks();
            self.expect(')', "\")\" was expected; a filter compares once")?;
            self.expect(']', "\"]\" was expected")?;
            return Ok(step);
        }
        let mut steps = vec![self.element()?];
        self.blanks();
        while self.take(',') {
            self.blanks();
            steps.push(self.element()?);
            self.blanks();
        }
        self.expect(']', "\"]\" was expected")?;
        Ok(match steps.pop() {
            Some(only) if steps.is_empty() => only,
            last => {
                steps.extend(last);
                Step::Union(steps)
            }
        })
    }

    fn element(&mut self) -> anyhow::Result<Step> {
        match self.peek() {
            Some('*') => {
                self.at += 1;
                Ok(Step::All)
            }
            Some('"' | '\'') => self.key(),
            Some(c) if c.is_ascii_digit() || c == '-' || c == ':' => self.index(),
            _ => self.wrong("[…] takes an index, a slice, 'a key', * or ?(a filter)"),
        }
    }

    /// A quoted key: all of it, or what its dots that are not escaped separate.
    fn key(&mut self) -> anyhow::Result<Step> {
        let Some(quote) = self.peek() else { return self.wrong("a key was expected") };
        let begin = self.at;
        self.at += 1;
        let (mut whole, mut fields) = (String::new(), vec![String::new()]);
        loop {
            let (escaped, c) = match self.peek() {
                Some('\\') => {
                    self.at += 1;
                    (true, self.peek())
                }
                c => (false, c),
            };
            let Some(c) = c else { return self.not_closed(begin, quote) };
            self.at += 1;
            if c == quote && !escaped {
                break;
            }
            whole.push(c);
            match fields.last_mut() {
                Some(field) if c != '.' || escaped => field.push(c),
                _ => fields.push(String::new()),
            }
        }
        Ok(Step::Key(whole, if fields.len() > 1 { fields } else { Vec::new() }))
    }

    fn not_closed<T>(&mut self, begin: usize, quote: char) -> anyhow::Result<T> {
        self.at = begin;
        self.wrong(&format!("{quote} is not closed"))
    }

    fn integer(&mut self) -> anyhow::Result<Option<i64>> {
        let begin = self.at;
        self.take('-');
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.text[begin..self.at].iter().collect();
        if digits.is_empty() {
            return Ok(None);
        }
        match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                self.at = begin;
                self.wrong(&format!("{digits:?} is no index"))
            }
        }
    }

    fn index(&mut self) -> anyhow::Result<Step> {
        let from = self.integer()?;
        if !self.take(':') {
            return match from {
                Some(index) => Ok(Step::Index(index)),
                None => self.wrong("an index was expected"),
            };
        }
        let to = self.integer()?;
        let by = if self.take(':') { self.integer()?.unwrap_or(1) } else { 1 };
        match usize::try_from(by) {
            Ok(by) if by > 0 => Ok(Step::Slice { from, to, by }),
            _ => self.wrong("a step is 1 or more"),
        }
    }

    fn filter(&mut self) -> anyhow::Result<Step> {
        self.blanks();
        if !matches!(self.peek(), Some('@' | '.')) {
            return self.wrong("a filter begins with a path of the element, like @.type");
        }
        let left = self.path()?;
        self.blanks();
        if self.peek() == Some(')') {
            return Ok(Step::Filter(left, None));
        }
        let operator = self.operator()?;
        self.blanks();
        let right = self.operand()?;
        self.blanks();
        if let Some(c @ ('&' | '|')) = self.peek() {
            return self.wrong(&format!("\"{c}\": a filter compares once"));
        }
        Ok(Step::Filter(left, Some((operator, right))))
    }

    fn operator(&mut self) -> anyhow::Result<Operator> {
        let begin = self.at;
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| "=!<>~&|".contains(*c)) {
            word.push(c);
            self.at += 1;
        }
        Ok(match word.as_str() {
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            _ => {
                self.at = begin;
                return self.wrong(&format!("{word:?} compares nothing: use == != < <= > >="));
            }
        })
    }

    fn operand(&mut self) -> anyhow::Result<Operand> {
        match self.peek() {
            Some('"' | '\'') => Ok(Operand::Value(self.quoted()?.into())),
            Some('@' | '.' | '$') => Ok(Operand::Path(self.path()?)),
            _ => {
                let begin = self.at;
                while self.peek().is_some_and(|c| c.is_alphanumeric() || "+-._".contains(c)) {
                    self.at += 1;
                }
                let word: String = self.text[begin..self.at].iter().collect();
                match serde_json::from_str(word.trim_start_matches('+')) {
                    Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Operand::Value(value)),
                    _ => {
                        self.at = begin;
                        self.wrong(
                            "a filter compares with a \"text\", a number, true, false or a path",
                        )
                    }
                }
            }
        }
    }

    /// A text in quotes, with Go's common escapes.
    fn quoted(&mut self) -> anyhow::Result<String> {
        let Some(quote) = self.peek() else { return self.wrong("a text was expected") };
        let begin = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return self.not_closed(begin, quote) };
            self.at += 1;
            match c {
                '\\' => {
                    let Some(escaped) = self.peek() else { return self.not_closed(begin, quote) };
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '\\' | '"' | '\'' => escaped,
                        other => {
                            return self.wrong(&format!(
                                "{:?} is not known: \\n, \\t, \\r, \\\\ and quotes are",
                                format!("\\{other}")
                            ));
                        }
                    });
                    self.at += 1;
                }
                c if c == quote => return Ok(text),
                c => text.push(c),
            }
        }
    }
}
